// SPDX-License-Identifier: MIT
// ReproducibleSum leaves the same payload on every instruction set. That is chosen once a process, so each sum is made
// in a process of its own; this one makes none.
#include <cstdlib>
#include <vector>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/kernels.hpp"
#include "syncbn/error.hpp"
#include "terms.hpp"

namespace syncbn::testing {
namespace {

/// The payload of many sums, made with SYNCBN_ISA = `isa`; empty if anything went wrong.
template <class T>
std::vector<std::byte> payload_with(const char* isa, Index size, Precision precision, bool special) {
  int ends[2];
  if (::pipe(ends) != 0) return {};
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("SYNCBN_ISA", isa, 1);
    ReproducibleSum sum(size, precision);
    for (const auto& row : random_rows<T>(60, size, special, 11)) sum.add_array(row.data());
    const bool is_meant = kernels::chosen_isa().is_valid;
    const auto written = is_meant ? ::write(ends[1], sum.payload(), sum.payload_bytes()) : -1;
    ::_exit(written == static_cast<ssize_t>(sum.payload_bytes()) ? 0 : 1);
  }
  ::close(ends[1]);
  std::vector<std::byte> payload;
  std::byte piece[4096];
  for (ssize_t got; (got = ::read(ends[0], piece, sizeof piece)) > 0;)
    payload.insert(payload.end(), piece, piece + got);
  ::close(ends[0]);
  int status = -1;
  const bool ended =
      child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  return ended ? payload : std::vector<std::byte>();
}

template <class T>
void check_all_isas() {
  for (const Precision precision : kBothPrecisions) {
    for (const Index size : {1, 2, 32, 67, 300}) {
      for (const bool special : {false, true}) {
        const auto wanted = payload_with<T>("scalar", size, precision, special);
        ASSERT_FALSE(wanted.empty());
        for (const kernels::Isa isa : {kernels::Isa::avx2, kernels::Isa::avx512, kernels::Isa::native}) {
          if (kernels::table_for(DataType::f32, isa) == nullptr) continue;
          ASSERT_EQ(payload_with<T>(name_of(isa), size, precision, special), wanted)
              << name_of(isa) << " size " << size << " bins " << bins_of(precision);
        }
      }
    }
  }
}

TEST(ReproducibleSumIsa, PayloadsOfFloatsAreTheSame) { check_all_isas<float>(); }
TEST(ReproducibleSumIsa, PayloadsOfDoublesAreTheSame) { check_all_isas<double>(); }

}  // namespace
}  // namespace syncbn::testing
