// SPDX-License-Identifier: MIT
// The public face of the binned accumulators: storage, fast deposits, messages.
#include "syncbn/reproducible_sum.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "comm/group.hpp"
#include "layer/bin_windows.hpp"
#include "statistics/bins_block.hpp"
#include "syncbn/communicator.hpp"

namespace syncbn {
namespace {

[[noreturn]] void fail(const std::string& text) { throw StateError("[ReproducibleSum] " + text); }

[[noreturn]] void fail_too_many_terms() {
  static_assert(statistics::kMaxDeposits == std::int64_t{1} << 26);
  fail("a sum would have more than 2^26 terms");
}

void merge_payload_message(const std::byte* in, std::byte* inout, std::size_t) {
  ReproducibleSum::merge_payload(in, inout);
}

/// Words of 8 bytes: storage that is aligned for what lies in it.
std::size_t words_of(std::size_t bytes) { return (bytes + 7) / 8; }

}  // namespace

class ReproducibleSum::Impl {
 public:
  Impl(Index sums, Precision chosen) : size(sums), precision(chosen) {
    constexpr Index kMostSums = Index{1} << 40;
    if (sums < 1 || sums > kMostSums) {
      fail("size is " + std::to_string(sums) + ", it must be from 1 to " + std::to_string(kMostSums));
    }
    if (chosen != Precision::bits72 && chosen != Precision::bits146) {
      fail("precision is " + std::to_string(static_cast<int>(chosen)) + ", it must be bits72 or bits146");
    }
    storage.resize(words_of(statistics::block_bytes(size, bins())));
    clear();
  }

  int bins() const { return static_cast<int>(precision); }
  std::size_t bytes() const { return statistics::block_bytes(size, bins()); }
  std::byte* block() { return reinterpret_cast<std::byte*>(storage.data()); }
  const std::byte* block() const { return reinterpret_cast<const std::byte*>(storage.data()); }

  void clear() { statistics::start_block(block(), size, bins()); }

  std::int64_t deposits() const { return statistics::header_of(block()).deposits; }

  /// Before `terms` more terms go to a sum: none of the bins may overflow.
  void count_terms(Index terms) {
    if (terms < 0) fail("count is " + std::to_string(terms) + ", it must be at least 0");
    check_room_for(terms);
    statistics::header_of(block()).deposits += terms;
  }
  void check_room_for(std::int64_t terms) const {
    if (terms > statistics::kMaxDeposits - deposits()) fail_too_many_terms();
  }
  void check_index(Index i) const {
    if (i < 0 || i >= size) fail("sum " + std::to_string(i) + " of " + std::to_string(size) + " does not exist");
  }

  void add(Index i, double term) { statistics::deposit(block(), i, term, source); }

  /// One term for each sum: the first half of the sums and the second half as pairs for the kernels, the odd one by
  /// itself.
  template <class T>
  void add_array(const T* terms) {
    const Index half = size / 2;
    if (half > 0) {
      const double* a = widened(terms);
      const kernels::KernelTable& kernel = kernels::table_for(bins() == 5 ? DataType::f64 : DataType::f32);
      const kernels::PairRows rows{a, a + half, 1, 2 * half, half};
      windows.attach(block(), half, DataTypeOf<T>::value, source);
      windows.deposit(
          [&](auto bins_a, auto bins_b, Index from) { return kernel.deposit_pairs(rows, bins_a, bins_b, from); },
          [&](Index from, Index width, Index, auto& largest) { kernel.pair_extremes(rows, from, width, largest); },
          [&](Index from, Index width) {
            return kernels::PairRows{rows.a + from, rows.b + from, 1, rows.stride, width};
          });
    }
    if (size % 2 != 0) add(size - 1, static_cast<double>(terms[size - 1]));
  }

  const double* widened(const double* terms) { return terms; }
  const double* widened(const float* terms) {
    wide.assign(terms, terms + size);
    return wide.data();
  }

  Index size;
  Precision precision;
  std::int64_t source = 0;
  std::vector<std::uint64_t> storage;
  std::vector<double> wide;
  layer::BinWindows windows;
};

ReproducibleSum::ReproducibleSum(Index size, Precision precision) : impl_(std::make_unique<Impl>(size, precision)) {}
ReproducibleSum::~ReproducibleSum() = default;
ReproducibleSum::ReproducibleSum(const ReproducibleSum& other) : impl_(std::make_unique<Impl>(*other.impl_)) {}
ReproducibleSum& ReproducibleSum::operator=(const ReproducibleSum& other) {
  if (this != &other) impl_ = std::make_unique<Impl>(*other.impl_);  // this may have been moved from
  return *this;
}
ReproducibleSum::ReproducibleSum(ReproducibleSum&&) noexcept = default;
ReproducibleSum& ReproducibleSum::operator=(ReproducibleSum&&) noexcept = default;

Index ReproducibleSum::size() const noexcept { return impl_->size; }
ReproducibleSum::Precision ReproducibleSum::precision() const noexcept { return impl_->precision; }

void ReproducibleSum::set_source(std::int64_t source) {
  if (source < 0) fail("source is " + std::to_string(source) + ", it must be at least 0");
  impl_->source = source;
}

void ReproducibleSum::clear() { impl_->clear(); }

void ReproducibleSum::add(Index i, double term) {
  impl_->check_index(i);
  impl_->count_terms(1);
  impl_->add(i, term);
}

void ReproducibleSum::add_product(Index i, double a, double b) {
  impl_->check_index(i);
  impl_->count_terms(2);
  const double product = a * b;
  impl_->add(i, product);
  if (std::isfinite(product)) impl_->add(i, std::fma(a, b, -product));
}

void ReproducibleSum::add_array(const float* terms) {
  impl_->count_terms(1);
  impl_->add_array(terms);
}
void ReproducibleSum::add_array(const double* terms) {
  impl_->count_terms(1);
  impl_->add_array(terms);
}

void ReproducibleSum::add_terms(Index i, const float* terms, Index count) {
  impl_->check_index(i);
  impl_->count_terms(count);
  for (Index k = 0; k < count; ++k) impl_->add(i, static_cast<double>(terms[k]));
}
void ReproducibleSum::add_terms(Index i, const double* terms, Index count) {
  impl_->check_index(i);
  impl_->count_terms(count);
  for (Index k = 0; k < count; ++k) impl_->add(i, terms[k]);
}

void ReproducibleSum::merge(const ReproducibleSum& other) {
  if (other.size() != size() || other.precision() != precision()) {
    fail("merge of " + std::to_string(other.size()) + " sums of " + std::to_string(other.impl_->bins()) +
         " bins into " + std::to_string(size()) + " of " + std::to_string(impl_->bins()));
  }
  impl_->check_room_for(other.impl_->deposits());
  merge_payload(other.payload(), impl_->block());
}

double ReproducibleSum::value(Index i) const {
  impl_->check_index(i);
  return statistics::sum_of(statistics::view_of(payload()), i).hi;
}
float ReproducibleSum::value_f32(Index i) const {
  impl_->check_index(i);
  return statistics::round_to_float(statistics::sum_of(statistics::view_of(payload()), i));
}
void ReproducibleSum::values(double* out) const {
  for (Index i = 0; i < size(); ++i) out[i] = value(i);
}
void ReproducibleSum::values(float* out) const {
  for (Index i = 0; i < size(); ++i) out[i] = value_f32(i);
}

ReproducibleSum::NonFinite ReproducibleSum::non_finite() const {
  const statistics::BinsHeader& header = statistics::header_of(payload());
  if (!header.offender.exists()) return {};
  return {header.nonfinite_terms, header.offender.source, header.offender.accumulator};
}

std::size_t ReproducibleSum::payload_bytes() const noexcept { return impl_->bytes(); }
const std::byte* ReproducibleSum::payload() const noexcept { return impl_->block(); }

void ReproducibleSum::set_payload(const std::byte* payload, std::size_t bytes) {
  statistics::BinsHeader header;
  if (bytes != payload_bytes()) {
    fail("the payload has " + std::to_string(bytes) + " bytes, wanted " + std::to_string(payload_bytes()));
  }
  std::memcpy(&header, payload, sizeof header);
  if (header.size != size() || header.bins != impl_->bins() || header.deposits < 0 ||
      header.deposits > statistics::kMaxDeposits) {
    fail("the payload is not one of " + std::to_string(size()) + " sums of " + std::to_string(impl_->bins()) + " bins");
  }
  std::memcpy(impl_->block(), payload, bytes);
}

void ReproducibleSum::merge_payload(const std::byte* in, std::byte* inout) { statistics::merge_block(in, inout); }

namespace {

/// What ranks must have in common before they merge.
struct SumContract {
  std::int64_t size;
  std::int64_t bins;
  Exchange exchange;
  std::int32_t reserved;
};

std::string text_of(const std::byte* bytes) {
  SumContract contract;
  std::memcpy(&contract, bytes, sizeof contract);
  return std::to_string(contract.size) + " sums of " + std::to_string(contract.bins) + " bins to " +
         (contract.exchange == Exchange::all_reduce ? "all_reduce" : "all_gather_merge");
}

/// Throws on all ranks, before anything is merged: MismatchError unless all bring the same size and precision to
/// the same function, StateError if they bring too many terms together. Collective: one message.
void check_ranks(comm::Group& group, const ReproducibleSum& sum, Exchange exchange) {
  const statistics::BinsHeader& header = statistics::header_of(sum.payload());
  const SumContract mine{sum.size(), header.bins, exchange, 0};
  std::int64_t deposits = 0;
  const auto other =
      group.pledge(comm::OwnPass::sum, &mine, sizeof mine, {header.deposits, std::nullopt}, std::nullopt, &deposits);
  if (other) {
    throw MismatchError("[ReproducibleSum] rank " + std::to_string(other->rank) + " of " +
                        std::to_string(group.size()) + " brings " + text_of(other->other) + ", rank 0 brings " +
                        text_of(other->first));
  }
  if (deposits > statistics::kMaxDeposits) fail_too_many_terms();
}

void merge_over(comm::Group& group, const ReproducibleSum& sum, std::byte* block, Exchange exchange) {
  if (group.size() == 1) return;
  check_ranks(group, sum, exchange);
  group.merge(block, sum.payload_bytes(), merge_payload_message, exchange, "[ReproducibleSum]");
}

}  // namespace

void ReproducibleSum::all_reduce(const Communicator& communicator) {
  merge_over(communicator.group(), *this, impl_->block(), Exchange::all_reduce);
}

void ReproducibleSum::all_gather_merge(const Communicator& communicator) {
  merge_over(communicator.group(), *this, impl_->block(), Exchange::all_gather);
}

}  // namespace syncbn
