// SPDX-License-Identifier: MIT
// The public face of the binned accumulators: storage, fast deposits, messages.
#include "syncbn/reproducible_sum.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "comm/round.hpp"
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

void merge_size_check(const std::byte* in, std::byte* inout, std::size_t) { comm::merge_header(in, inout); }

void merge_payload_message(const std::byte* in, std::byte* inout, std::size_t) {
  ReproducibleSum::merge_payload(in, inout);
}

/// Words of 8 bytes: storage that is aligned for what lies in it.
std::size_t words_of(std::size_t bytes) { return (bytes + 7) / 8; }

}  // namespace

class ReproducibleSum::Impl {
 public:
  Impl(Index sums, Precision chosen) : size(sums), precision(chosen) {
    if (sums < 1) fail("size is " + std::to_string(sums) + ", it must be at least 1");
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

/// Throws on all ranks, before anything is merged: MismatchError unless all bring the same size and precision,
/// StateError if they bring too many terms together. Collective: one message.
void check_ranks(comm::Transport& transport, const ReproducibleSum& sum) {
  comm::MessageHeader header;
  header.key = {static_cast<std::int32_t>(sum.precision()), 0, sum.size()};
  header.lowest_rank = transport.rank();
  header.count = statistics::header_of(sum.payload()).deposits;
  std::byte message[sizeof header];
  std::memcpy(message, &header, sizeof header);
  transport.all_reduce(message, sizeof message, merge_size_check);
  std::memcpy(&header, message, sizeof header);
  if (header.rank_out_of_step == comm::MessageHeader::kNobody) {
    if (header.count > statistics::kMaxDeposits) fail_too_many_terms();
    return;
  }
  const auto text = [](const comm::RoundKey& key) {
    return std::to_string(key.sequence) + " sums of " + std::to_string(key.pass) + " bins";
  };
  throw MismatchError("[ReproducibleSum] rank " + std::to_string(header.rank_out_of_step) + " of " +
                      std::to_string(transport.size()) + " brings " + text(header.other_key) + ", rank 0 brings " +
                      text(header.key));
}

}  // namespace

void ReproducibleSum::all_reduce(const Communicator& communicator) {
  comm::Transport& transport = communicator.transport();
  if (transport.size() == 1) return;
  check_ranks(transport, *this);
  transport.all_reduce(impl_->block(), payload_bytes(), merge_payload_message);
}

void ReproducibleSum::all_gather_merge(const Communicator& communicator) {
  comm::Transport& transport = communicator.transport();
  if (transport.size() == 1) return;
  check_ranks(transport, *this);
  const std::size_t bytes = payload_bytes();
  std::vector<std::uint64_t> all(words_of(bytes) * static_cast<std::size_t>(transport.size()));
  auto* gathered = reinterpret_cast<std::byte*>(all.data());
  transport.all_gather(impl_->block(), bytes, gathered);
  impl_->clear();
  for (int rank = 0; rank < transport.size(); ++rank) {
    merge_payload(gathered + static_cast<std::size_t>(rank) * bytes, impl_->block());
  }
}

}  // namespace syncbn
