// SPDX-License-Identifier: MIT
// ReproducibleSum in one process.
#include "syncbn/reproducible_sum.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "support/exact.hpp"
#include "syncbn/communicator.hpp"
#include "syncbn/error.hpp"
#include "terms.hpp"

namespace syncbn::testing {
namespace {

constexpr Index kSizes[] = {1, 2, 3, 17, 31, 32, 33, 64, 67, 1000};

/// As the class is defined: every term by itself into bins.
template <class T>
std::vector<std::uint64_t> block_by_definition(const std::vector<std::vector<T>>& rows, Index size, int bins) {
  std::vector<std::uint64_t> words(statistics::block_bytes(size, bins) / 8);
  auto* block = reinterpret_cast<std::byte*>(words.data());
  statistics::start_block(block, size, bins);
  for (const auto& row : rows) {
    for (Index i = 0; i < size; ++i) {
      statistics::deposit(block, i, static_cast<double>(row[static_cast<std::size_t>(i)]), 0);
    }
  }
  return words;
}

class Sums : public ::testing::TestWithParam<Precision> {
 protected:
  ReproducibleSum make(Index size) const { return ReproducibleSum(size, GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Precisions, Sums, ::testing::ValuesIn(kBothPrecisions),
                         [](const auto& precision) { return std::to_string(bins_of(precision.param)) + "Bins"; });

template <class T>
void check_add_array(Precision precision) {
  for (const Index size : kSizes) {
    for (const bool special : {false, true}) {
      auto rows = random_rows<T>(20, size, special, static_cast<std::uint64_t>(size));
      const auto words = block_by_definition(rows, size, bins_of(precision));
      Random random(7);
      for (int order = 0; order < 10; ++order) {
        ReproducibleSum sum(size, precision);
        for (const auto& row : rows) sum.add_array(row.data());
        ASSERT_TRUE(same_content(sum.payload(), reinterpret_cast<const std::byte*>(words.data()), sum.payload_bytes()))
            << "size " << size << " order " << order;
        std::shuffle(rows.begin(), rows.end(), random);
      }
    }
  }
}
TEST_P(Sums, AddArrayOfFloatsDepositsEachTerm) { check_add_array<float>(GetParam()); }
TEST_P(Sums, AddArrayOfDoublesDepositsEachTerm) { check_add_array<double>(GetParam()); }

TEST_P(Sums, AllRoutesGiveTheSame) {
  constexpr Index kSize = 35;
  const auto rows = random_rows<double>(30, kSize, true, 3);
  ReproducibleSum arrays = make(kSize);
  ReproducibleSum singles = make(kSize);
  ReproducibleSum columns = make(kSize);
  for (const auto& row : rows) arrays.add_array(row.data());
  for (Index i = kSize - 1; i >= 0; --i) {
    std::vector<double> column;
    for (const auto& row : rows) column.push_back(row[static_cast<std::size_t>(i)]);
    for (const double term : column) singles.add(i, term);
    columns.add_terms(i, column.data(), static_cast<Index>(column.size()));
  }
  EXPECT_TRUE(same_content(arrays, singles));
  EXPECT_TRUE(same_bytes(columns, singles));
  for (Index i = 0; i < kSize; ++i) {
    const double value = arrays.value(i);
    EXPECT_TRUE(value == singles.value(i) || (std::isnan(value) && std::isnan(singles.value(i))));
  }
}

TEST_P(Sums, TreesOfMergesGiveTheSameBytes) {
  for (const Index size : {1, 2, 17}) {
    auto rows = random_rows<double>(40, size, true, 4);
    ReproducibleSum whole = make(size);
    for (const auto& row : rows) whole.add_array(row.data());
    Random random(5);
    for (int trial = 0; trial < 50; ++trial) {
      std::shuffle(rows.begin(), rows.end(), random);
      std::vector<ReproducibleSum> parts;
      for (std::size_t r = 0; r < rows.size();) {
        parts.push_back(make(size));
        for (auto count = random() % 6; count > 0 && r < rows.size(); --count) parts.back().add_array(rows[r++].data());
      }
      while (parts.size() > 1) {
        const std::size_t into = random() % parts.size();
        const std::size_t from = (into + 1 + random() % (parts.size() - 1)) % parts.size();
        parts[into].merge(parts[from]);
        parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(from));
      }
      ASSERT_TRUE(same_bytes(parts.front(), whole)) << "size " << size << " trial " << trial;
    }
  }
}

TEST_P(Sums, FloatsWithinThePromisedRangeAreRoundedOnce) {
  Random random(6);
  for (int trial = 0; trial < 300; ++trial) {
    ReproducibleSum sum = make(2);
    Exact exact;
    for (int n = 0; n < 50; ++n) {
      const float significand = static_cast<float>(1u << 23 | random() % (1u << 23));
      const float term =
          std::ldexp(significand, static_cast<int>(random() % 48) - 60) * (random() % 2 != 0 ? 1.0f : -1.0f);
      const float terms[2] = {0.0f, term};
      sum.add_array(terms);
      exact += Exact(static_cast<double>(term));
    }
    ASSERT_EQ(sum.value(1), exact.to_double());
    ASSERT_EQ(sum.value_f32(1), exact.to_float());
    double values[2] = {1.0, 1.0};
    float values_f32[2] = {1.0f, 1.0f};
    sum.values(values);
    sum.values(values_f32);
    ASSERT_EQ(values[0], 0.0);
    ASSERT_EQ(values[1], exact.to_double());
    ASSERT_EQ(values_f32[1], exact.to_float());
  }
}

TEST_P(Sums, KeepTheDocumentedErrorBound) {
  Random random(7);
  const double bound = GetParam() == Precision::bits72 ? 0x1p-72 : 0x1p-144;
  for (int trial = 0; trial < 300; ++trial) {
    ReproducibleSum sum = make(1);
    Exact exact;
    double largest = 0.0;
    constexpr int kTerms = 30;
    for (int n = 0; n < kTerms; ++n) {
      const double term = random_term(random, false) * 0x1p-20;
      sum.add(0, term);
      exact += Exact(term);
      largest = std::max(largest, std::abs(term));
    }
    const Exact value(sum.value());
    const Exact half_ulp = Exact(std::max(std::ldexp(std::abs(sum.value()), -53), 0x1p-1074));
    ASSERT_LE((value - exact).magnitude(), Exact(double{kTerms}) * Exact(bound) * Exact(largest) + half_ulp);
  }
}

TEST_P(Sums, ProductsAreExact) {
  Random random(8);
  ReproducibleSum sum = make(1);
  Exact exact;
  for (int n = 0; n < 40; ++n) {
    // 24-bit factors within 2^10: 48 bits that both precisions keep.
    const double a = std::ldexp(static_cast<double>(random() % (1u << 24)), -30);
    const double b = std::ldexp(static_cast<double>(random() % (1u << 24)) - 0x1p23, -30);
    sum.add_product(0, a, b);
    exact += Exact(a) * Exact(b);
  }
  EXPECT_EQ(sum.value(), exact.to_double());
  ReproducibleSum cancelling = make(1);
  const double third = 1.0 / 3.0;
  cancelling.add_product(0, third, third);
  cancelling.add(0, -(third * third));
  EXPECT_EQ(cancelling.value(), std::fma(third, third, -(third * third)));
  EXPECT_NE(cancelling.value(), 0.0);
  ReproducibleSum infinite = make(1);
  infinite.add_product(0, 1e200, 1e200);
  EXPECT_EQ(infinite.value(), std::numeric_limits<double>::infinity());
  EXPECT_EQ(infinite.non_finite().terms, 1);
}

TEST_P(Sums, NonFiniteTermsAreCountedAndTheFirstIsNamed) {
  const double nan = std::nan("");
  const double infinity = std::numeric_limits<double>::infinity();
  ReproducibleSum low = make(17);
  ReproducibleSum high = make(17);
  EXPECT_EQ(low.non_finite().terms, 0);
  EXPECT_EQ(low.non_finite().source, -1);
  EXPECT_EQ(low.non_finite().sum, -1);
  low.set_source(2);
  high.set_source(5);
  std::vector<double> row(17, 1.0);
  row[3] = infinity;
  row[16] = nan;
  high.add_array(row.data());
  EXPECT_EQ(high.non_finite().source, 5);
  EXPECT_EQ(high.non_finite().sum, 3);
  low.add(9, -infinity);
  ReproducibleSum merged = high;
  merged.merge(low);
  ReproducibleSum other_way = low;
  other_way.merge(high);
  EXPECT_TRUE(same_bytes(merged, other_way));
  EXPECT_EQ(merged.non_finite().terms, 3);
  EXPECT_EQ(merged.non_finite().source, 2);
  EXPECT_EQ(merged.non_finite().sum, 9);
  EXPECT_EQ(merged.value(3), infinity);
  EXPECT_EQ(merged.value_f32(9), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(merged.value(16)));
  EXPECT_EQ(merged.value(0), 1.0) << "the other sums go on";
  merged.add(3, -infinity);
  EXPECT_TRUE(std::isnan(merged.value(3)));
  merged.clear();
  EXPECT_EQ(merged.non_finite().terms, 0);
  EXPECT_EQ(merged.value(3), 0.0);
}

TEST_P(Sums, PayloadsTravel) {
  for (const Index size : kSizes) {
    const auto rows = random_rows<double>(10, size, true, 9);
    ReproducibleSum sum = make(size);
    ReproducibleSum second = make(size);
    for (const auto& row : rows) (&row - rows.data() < 4 ? sum : second).add_array(row.data());
    ReproducibleSum copy = make(size);
    copy.add(0, 99.0);  // to be forgotten
    copy.set_payload(sum.payload(), sum.payload_bytes());
    EXPECT_TRUE(same_bytes(copy, sum));
    copy.merge(second);
    std::vector<std::uint64_t> words(sum.payload_bytes() / 8);
    auto* bytes = reinterpret_cast<std::byte*>(words.data());
    ReproducibleSum::merge_payload(sum.payload(), bytes);  // zero bytes are the empty set
    EXPECT_EQ(std::memcmp(bytes, sum.payload(), sum.payload_bytes()), 0);
    ReproducibleSum::merge_payload(second.payload(), bytes);
    EXPECT_EQ(std::memcmp(bytes, copy.payload(), copy.payload_bytes()), 0);
    copy.set_payload(bytes, sum.payload_bytes());  // and it is a payload
    EXPECT_EQ(sum.payload_bytes() % 8, 0u);
  }
}

/// `call` throws StateError whose text contains `part`, and leaves `sum` as it was.
template <class Call>
void expect_refused(ReproducibleSum& sum, const std::string& part, const Call& call) {
  const ReproducibleSum before = sum;
  try {
    call();
    ADD_FAILURE() << "nothing was thrown, wanted: " << part;
  } catch (const StateError& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
  EXPECT_TRUE(same_bytes(sum, before)) << part;
}

TEST_P(Sums, RefuseWhatTheyCannotServe) {
  ReproducibleSum sum = make(3);
  sum.add(1, 2.5);
  const double terms[1] = {1.0};
  const float terms_f32[1] = {1.0f};
  expect_refused(sum, "sum 3 of 3", [&] { sum.add(3, 1.0); });
  expect_refused(sum, "sum -1 of 3", [&] { sum.add(-1, 1.0); });
  expect_refused(sum, "sum 3 of 3", [&] { sum.add_product(3, 1.0, 1.0); });
  expect_refused(sum, "sum 4 of 3", [&] { sum.add_terms(4, terms, 1); });
  expect_refused(sum, "sum 4 of 3", [&] { sum.add_terms(4, terms_f32, 1); });
  expect_refused(sum, "-1", [&] { sum.add_terms(0, terms, -1); });
  expect_refused(sum, "-1", [&] { sum.add_terms(0, terms_f32, -1); });
  expect_refused(sum, "sum 3 of 3", [&] { sum.value(3); });
  expect_refused(sum, "sum -1 of 3", [&] { sum.value_f32(-1); });
  expect_refused(sum, "source is -1", [&] { sum.set_source(-1); });
  expect_refused(sum, "2 sums", [&] { sum.merge(make(2)); });
  const Precision other = GetParam() == Precision::bits72 ? Precision::bits146 : Precision::bits72;
  expect_refused(sum, "bins", [&] { sum.merge(ReproducibleSum(3, other)); });
  EXPECT_THROW(make(0), StateError);
  EXPECT_THROW(make(-5), StateError);

  const ReproducibleSum four = make(4);
  const ReproducibleSum wider(3, other);
  expect_refused(sum, "bytes", [&] { sum.set_payload(sum.payload(), sum.payload_bytes() - 1); });
  expect_refused(sum, "bytes", [&] { sum.set_payload(sum.payload(), 0); });
  expect_refused(sum, "bytes", [&] { sum.set_payload(four.payload(), four.payload_bytes()); });
  expect_refused(sum, "bytes", [&] { sum.set_payload(wider.payload(), wider.payload_bytes()); });
  std::vector<std::byte> garbage(sum.payload_bytes(), std::byte{0x77});
  expect_refused(sum, "not one of 3 sums", [&] { sum.set_payload(garbage.data(), garbage.size()); });
}

TEST_P(Sums, TakeTheDocumentedNumberOfTermsAndRefuseOneMore) {
  const double term = std::ldexp(0.5, statistics::kBinWidth);  // its slice is as large as they get
  ReproducibleSum sum = make(1);
  sum.add(0, term);
  std::int64_t terms = 1;
  for (; terms < statistics::kMaxDeposits; terms *= 2) sum.merge(ReproducibleSum(sum));
  EXPECT_EQ(sum.value(), term * static_cast<double>(terms));
  ReproducibleSum one = make(1);
  one.add(0, 1.0);
  const double zero = 0.0;
  expect_refused(sum, "terms", [&] { sum.add(0, 1.0); });
  expect_refused(sum, "terms", [&] { sum.add_array(&zero); });
  expect_refused(sum, "terms", [&] { sum.add_product(0, 1.0, 1.0); });
  expect_refused(sum, "terms", [&] { sum.add_terms(0, &zero, std::numeric_limits<Index>::max()); });
  expect_refused(sum, "terms", [&] { sum.merge(one); });
  expect_refused(sum, "terms", [&] { sum.merge(sum); });
  sum.add_terms(0, &zero, 0);
  sum.merge(make(1));
  EXPECT_EQ(sum.value(), term * static_cast<double>(terms));
}

TEST_P(Sums, AreValues) {
  ReproducibleSum a = make(33);
  const std::vector<double> row(33, 0.1);
  a.add_array(row.data());
  ReproducibleSum b = a;
  a.add_array(row.data());
  b.add_array(row.data());
  EXPECT_TRUE(same_bytes(a, b)) << "a copy goes on by itself";
  ReproducibleSum c = std::move(a);
  c.add_array(row.data());
  b = c;
  EXPECT_TRUE(same_bytes(b, c));
  a = c;  // a moved-from object may be assigned to
  EXPECT_TRUE(same_bytes(a, c));
  ReproducibleSum other(2, Precision::bits72);
  other = c;
  EXPECT_TRUE(same_bytes(other, c));
  EXPECT_EQ(other.precision(), GetParam());
  ReproducibleSum& self = c;
  c = self;
  c.merge(self);
  EXPECT_EQ(c.value(32), (Exact(6.0) * Exact(0.1)).to_double());
  c.all_reduce(Communicator());
  c.all_gather_merge(Communicator());
  EXPECT_EQ(c.value(32), (Exact(6.0) * Exact(0.1)).to_double()) << "a communicator of one changes nothing";
}

}  // namespace
}  // namespace syncbn::testing
