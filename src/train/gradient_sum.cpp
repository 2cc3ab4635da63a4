// SPDX-License-Identifier: MIT
#include "gradient_sum.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "collectives.hpp"
#include "errors.hpp"
#include "units.hpp"
#include "watched.hpp"

namespace syncbn::train {

namespace {

constexpr Index kLineFloats = kAlignment / sizeof(float);

/// Lines of `count` floats and one more number, a double or flags, in the last 8 bytes.
Index lines_of(Index count) { return (count + 2 + kLineFloats - 1) / kLineFloats; }

/// The last 8 bytes of `lines` lines.
template <class T>
T tail(const float* lines, Index count) {
  static_assert(sizeof(T) == 2 * sizeof(float));
  T value;
  std::memcpy(&value, lines + count * kLineFloats - 2, sizeof(value));
  return value;
}

template <class T>
void set_tail(float* lines, Index count, T value) {
  static_assert(sizeof(T) == 2 * sizeof(float));
  std::memcpy(lines + count * kLineFloats - 2, &value, sizeof(value));
}

/// sums[i] = 0 + part(0)[i] + part(1)[i] + ... + part(count - 1)[i], added from the left.
template <class Part>
void add_in_order(Buffer<double>& sums, Index count, const Part& part) {
  // Eight at a time: their sum stays in a register.
  constexpr Index kTogether = 8;
  static_assert(kUnitCount == kTogether);
  double* sum = sums.data();
  const std::size_t size = sums.size();
  std::fill_n(sum, size, 0.0);
  Index first = 0;
  for (; first + kTogether <= count; first += kTogether) {
    const float *a = part(first), *b = part(first + 1), *c = part(first + 2), *d = part(first + 3);
    const float *e = part(first + 4), *f = part(first + 5), *g = part(first + 6), *h = part(first + 7);
    for (std::size_t i = 0; i < size; ++i) {
      sum[i] = sum[i] + double{a[i]} + double{b[i]} + double{c[i]} + double{d[i]} + double{e[i]} + double{f[i]} +
               double{g[i]} + double{h[i]};
    }
  }
  for (; first < count; ++first) {
    const float* values = part(first);
    for (std::size_t i = 0; i < size; ++i) sum[i] += double{values[i]};
  }
}

}  // namespace

GradientSum::GradientSum(MPI_Comm comm, Index unit_size, Index rank_size, Index note_size)
    : comm_(comm),
      rank_(rank_of(comm)),
      rank_count_(size_of(comm)),
      unit_lines_(lines_of(unit_size)),
      rank_lines_(lines_of(rank_size + note_size)),
      owners_(static_cast<std::size_t>(kUnitCount)) {
  constexpr Index kMaxLines = std::numeric_limits<int>::max();
  const Index lines = kUnitCount * unit_lines_ + rank_count_ * rank_lines_;
  if (unit_lines_ > kMaxLines || rank_lines_ > kMaxLines || lines > kMaxLines) {
    throw UsageError("a gradient of " + std::to_string(unit_size + rank_size) + " weights on " +
                     std::to_string(rank_count_) + " ranks is more than one MPI message can have");
  }
  for (Index rank = 0; rank < rank_count_; ++rank) {
    const SampleRange units = units_of_rank(rank, rank_count_);
    first_lines_.push_back(static_cast<int>(rank * rank_lines_ + units.first * unit_lines_));
    line_counts_.push_back(static_cast<int>(rank_lines_ + units.count * unit_lines_));
    std::fill_n(owners_.begin() + units.first, units.count, rank);
  }
  message_.resize(static_cast<std::size_t>(lines * kLineFloats));
  unit_sums_.resize(static_cast<std::size_t>(unit_size));
  rank_sums_.resize(static_cast<std::size_t>(rank_size));
  check(MPI_Type_contiguous(static_cast<int>(kAlignment), MPI_BYTE, &line_), "MPI_Type_contiguous");
  check(MPI_Type_commit(&line_), "MPI_Type_commit");
}

GradientSum::~GradientSum() { MPI_Type_free(&line_); }

float* GradientSum::rank_at(Index rank) noexcept {
  return message_.data() + first_lines_[static_cast<std::size_t>(rank)] * kLineFloats;
}

float* GradientSum::unit_at(Index unit) noexcept {
  const Index owner = owners_[static_cast<std::size_t>(unit)];
  return message_.data() + ((owner + 1) * rank_lines_ + unit * unit_lines_) * kLineFloats;
}

void GradientSum::set_loss(Index unit, double loss) noexcept { set_tail(unit_at(unit), unit_lines_, loss); }

void GradientSum::set_flag(int flag, bool is_set) noexcept {
  const std::uint64_t bit = std::uint64_t{1} << flag;
  const auto flags = tail<std::uint64_t>(rank(), rank_lines_);
  set_tail(rank(), rank_lines_, is_set ? flags | bit : flags & ~bit);
}

void GradientSum::all_gather() {
  if (rank_count_ > 1) {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Iallgatherv(MPI_IN_PLACE, 0, line_, message_.data(), line_counts_.data(), first_lines_.data(), line_,
                          comm_, &request),
          "MPI_Iallgatherv");
    wait(comm_, request, "gradients");
  }
  add_in_order(unit_sums_, kUnitCount, [this](Index unit) { return unit_at(unit); });
  add_in_order(rank_sums_, rank_count_, [this](Index rank) { return rank_at(rank); });
}

double GradientSum::loss_sum() const noexcept {
  double sum = 0;
  for (Index unit = 0; unit < kUnitCount; ++unit) sum += tail<double>(unit_at(unit), unit_lines_);
  return sum;
}

bool GradientSum::is_flag_set(int flag) const noexcept {
  for (Index rank = 0; rank < rank_count_; ++rank) {
    if ((tail<std::uint64_t>(rank_at(rank), rank_lines_) >> flag & 1) != 0) return true;
  }
  return false;
}

}  // namespace syncbn::train
