// SPDX-License-Identifier: MIT
// SYNCBN_ISA. The choice is made once a process, so each case has a process of its own; this one must not choose.
#include <cstdlib>
#include <functional>

#include <sys/wait.h>
#include <unistd.h>

#include "kernel_inputs.hpp"

namespace syncbn::testing {
namespace {

using kernels::chosen_isa;
using kernels::Isa;
using kernels::table_for;

constexpr Isa kIsas[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::native};

bool exists(Isa isa) { return table_for(DataType::f32, isa) != nullptr; }

Isa best() {
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::native}) {
    if (exists(isa)) return isa;
  }
  return Isa::scalar;
}

/// Is `claim` true in a process with this SYNCBN_ISA? Null: without the variable.
bool holds_with(const char* value, const std::function<bool()>& claim) {
  const pid_t child = ::fork();
  if (child == 0) {
    value != nullptr ? ::setenv("SYNCBN_ISA", value, 1) : ::unsetenv("SYNCBN_ISA");
    ::_exit(claim() ? 0 : 1);
  }
  int status = -1;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return false;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool has_chosen(Isa isa, bool is_valid) {
  return chosen_isa().isa == isa && chosen_isa().is_valid == is_valid &&
         &table_for(DataType::f32) == table_for(DataType::f32, isa) &&
         &table_for(DataType::f64) == table_for(DataType::f64, isa) &&
         &table_for(DataType::bf16) == table_for(DataType::bf16, isa) &&
         &table_for(DataType::f16) == table_for(DataType::f16, isa);
}

TEST(Dispatch, TakesTheBestByDefault) {
  EXPECT_TRUE(holds_with(nullptr, [] { return has_chosen(best(), true); }));
  EXPECT_TRUE(holds_with("", [] { return has_chosen(best(), true); }));
}

TEST(Dispatch, TakesWhatIsAskedForIfThereIsIt) {
  EXPECT_TRUE(exists(Isa::scalar));
  for (const Isa isa : kIsas) {
    SCOPED_TRACE(name_of(isa));
    const bool has_it = exists(isa);
    EXPECT_TRUE(holds_with(name_of(isa), [&] { return has_chosen(has_it ? isa : best(), has_it); }));
  }
}

TEST(Dispatch, SaysThatAnUnknownNameIsInvalid) {
  for (const char* name : {"avx3", "AVX2", "avx2 ", "scala", "sse2", "1", "unknown"}) {
    SCOPED_TRACE(name);
    EXPECT_TRUE(holds_with(name, [] { return has_chosen(best(), false); }));
  }
}

TEST(Dispatch, TablesAreCompleteAndDiffer) {
  for (const Isa isa : kIsas) {
    for (const DataType type : {DataType::f32, DataType::f64, DataType::bf16, DataType::f16}) {
      const kernels::KernelTable* table = table_for(type, isa);
      ASSERT_EQ(table != nullptr, exists(isa)) << "one type has it, the other not";
      if (table == nullptr) continue;
      EXPECT_TRUE(table->plane_sums && table->moment_rows && table->gradient_sums && table->deposit_pairs &&
                  table->deposit_gradients && table->expand_values && table->expand_gradients && table->normalize &&
                  table->input_gradient && table->scale && table->mask_gradient && table->masked_gradient_sums)
          << name_of(isa);
      EXPECT_EQ(table->deposit_values != nullptr, type != DataType::f64);
      EXPECT_EQ(table->normalize == table_for(type, Isa::scalar)->normalize, isa == Isa::scalar);
    }
  }
}

}  // namespace
}  // namespace syncbn::testing
