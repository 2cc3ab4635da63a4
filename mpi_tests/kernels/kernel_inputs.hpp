// SPDX-License-Identifier: MIT
// Data for the tests of kernels: hard values, hard addresses; and comparison bit by bit.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/kernels.hpp"
#include "support/half_limits.hpp"

namespace syncbn::testing {

using Random = std::mt19937_64;

/// Memory for `count` elements that ends right before a page that nobody may touch, or, with `shift` > 0, `shift`
/// elements before it. So a kernel that reads or writes behind the end ends the test, and every alignment occurs.
template <class T>
class Guarded {
 public:
  explicit Guarded(Index count, Index shift = 0) : count_(count) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const std::size_t needed = static_cast<std::size_t>(count + shift) * sizeof(T);
    bytes_ = (needed + page - 1) / page * page + page;
    memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    auto* last_page = static_cast<std::byte*>(memory_) + bytes_ - page;
    if (::mprotect(last_page, page, PROT_NONE) != 0) throw std::bad_alloc();
    data_ = reinterpret_cast<T*>(last_page) - shift - count;
  }
  ~Guarded() { ::munmap(memory_, bytes_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  Index count() const { return count_; }
  T& operator[](Index i) { return data_[i]; }
  const T& operator[](Index i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + count_; }

 private:
  Index count_;
  std::size_t bytes_ = 0;
  void* memory_ = nullptr;
  T* data_ = nullptr;
};

/// Kinds of values.
enum class Kind { ordinary, large_mean, special };
inline constexpr Kind kAllKinds[] = {Kind::ordinary, Kind::large_mean, Kind::special};

template <class T>
T special_value(Random& random) {
  using Limits = std::numeric_limits<T>;
  const auto most = static_cast<double>(Limits::max());
  const auto least = static_cast<double>(Limits::min());
  const auto tiny = static_cast<double>(Limits::denorm_min());
  const auto infinity = static_cast<double>(Limits::infinity());
  const double values[] = {0.0,      -0.0,      tiny,      -tiny,
                           least,    -least,    most,      -most,
                           infinity, -infinity, 1.0,       std::numeric_limits<double>::quiet_NaN(),
                           -1.0,     most / 4,  least / 8, static_cast<double>(Limits::epsilon())};
  return static_cast<T>(values[random() % std::size(values)]);
}

template <class T>
void fill(Guarded<T>& data, Kind kind, Random& random) {
  std::normal_distribution<double> noise(0.0, 1.0);
  for (T& value : data) {
    const double mean = kind != Kind::large_mean ? 0.0 : kIsHalf<T> ? 1e3 : 1e6;
    value = static_cast<T>(mean + noise(random));
    if (kind == Kind::special && random() % 6 == 0) value = special_value<T>(random);
  }
}

/// The same bits. NaNs count as the same whatever their payload and sign: which operand's payload an operation hands on
/// is not fixed by IEEE 754.
template <class T>
bool same_bits(T a, T b) {
  return (is_nan(a) && is_nan(b)) || std::memcmp(&a, &b, sizeof a) == 0;
}

template <class T>
::testing::AssertionResult same_bits(const T* got, const T* wanted, Index count) {
  for (Index i = 0; i < count; ++i) {
    if (same_bits(got[i], wanted[i])) continue;
    return ::testing::AssertionFailure() << std::hexfloat << "element " << i << " of " << count << ": got " << got[i]
                                         << ", wanted " << wanted[i];
  }
  return ::testing::AssertionSuccess();
}
template <class T>
::testing::AssertionResult same_bits(const Guarded<T>& got, const Guarded<T>& wanted) {
  return same_bits(got.data(), wanted.data(), wanted.count());
}

/// The instruction sets of this build and processor, without the plain one.
inline std::vector<kernels::Isa> vector_isas() {
  std::vector<kernels::Isa> isas;
  for (const kernels::Isa isa : {kernels::Isa::avx2, kernels::Isa::avx512, kernels::Isa::native}) {
    if (kernels::table_for(DataType::f32, isa) != nullptr) isas.push_back(isa);
  }
  return isas;
}

/// Tests of a vector table against the plain one: TYPED_TEST over the element type, all instruction sets inside.
template <class T>
class Twin : public ::testing::Test {
 protected:
  static constexpr DataType kType = DataTypeOf<T>::value;
  const kernels::KernelTable& plain() const { return *kernels::table_for(kType, kernels::Isa::scalar); }
  template <class Body>
  void for_each_isa(const Body& body) const {
    const std::vector<kernels::Isa> isas = vector_isas();
    if (isas.empty()) GTEST_SKIP() << "this processor or build has the plain kernels only";
    for (const kernels::Isa isa : isas) {
      SCOPED_TRACE(name_of(isa));
      body(*kernels::table_for(kType, isa));
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
};
using ElementTypes = ::testing::Types<float, double, bfloat16, float16>;
using WideTypes = ::testing::Types<float, double>;  // for tests that calculate in T

inline std::string text_of(kernels::BlockShape shape) {
  return "N " + std::to_string(shape.samples) + " C " + std::to_string(shape.sample.channels) + " S " +
         std::to_string(shape.sample.positions) + (shape.sample.channels_last ? " channels-last" : " channels-first");
}

/// Sizes around vector widths (4, 8), lanes and strips (16); 32 and 64 channels, whose sums stay in registers.
inline constexpr Index kChannelCounts[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64};
inline constexpr Index kPositionCounts[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 31, 32, 33, 49, 64, 65, 100};

template <class Body>
void for_each_shape(Index samples, const Body& body) {
  for (const Index channels : kChannelCounts) {
    for (const Index positions : kPositionCounts) {
      for (const bool channels_last : {false, true}) {
        const kernels::BlockShape shape{samples, {channels, positions, channels_last}};
        SCOPED_TRACE(text_of(shape));
        body(shape);
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

inline Index element_count(kernels::BlockShape shape) {
  return shape.samples * shape.sample.channels * shape.sample.positions;
}

}  // namespace syncbn::testing
