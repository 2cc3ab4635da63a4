// SPDX-License-Identifier: MIT
// Blocks of accumulators as bytes: what ranks exchange.
#include "statistics/bins_block.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "accumulator.hpp"

namespace syncbn::testing {
namespace {

using statistics::BinsHeader;
using statistics::BinsView;

class Block {
 public:
  Block(Index size, int bins) : words_(statistics::block_bytes(size, bins) / 8, 0xa5a5a5a5a5a5a5a5u) {
    statistics::start_block(data(), size, bins);
  }
  /// Zero bytes: a rank that has nothing to say.
  static Block zeros(Index size, int bins) {
    Block block(size, bins);
    std::fill(block.words_.begin(), block.words_.end(), 0);
    return block;
  }
  std::byte* data() { return reinterpret_cast<std::byte*>(words_.data()); }
  const std::byte* data() const { return reinterpret_cast<const std::byte*>(words_.data()); }
  BinsHeader& header() { return statistics::header_of(data()); }
  BinsView view() { return statistics::view_of(data()); }

  void add(Index i, double value, std::int64_t source) {
    statistics::deposit(data(), i, value, source);
    ++header().deposits;
  }
  void merge(const Block& other) { statistics::merge_block(other.data(), data()); }
  friend bool operator==(const Block&, const Block&) = default;

 private:
  std::vector<std::uint64_t> words_;
};

struct Term {
  Index i;
  double value;
  std::int64_t source;
};

std::vector<Term> random_terms(Index size, std::size_t count, bool with_non_finite, Random& random) {
  std::vector<double> pool = nasty_values(-2, 3);
  const std::vector<double> bad = {std::nan(""), std::numeric_limits<double>::infinity(),
                                   -std::numeric_limits<double>::infinity()};
  std::vector<Term> terms(count);
  for (Term& term : terms) {
    const bool is_bad = with_non_finite && random() % 8 == 0;
    term = {static_cast<Index>(random() % static_cast<std::uint64_t>(size)), any_of(is_bad ? bad : pool, random),
            static_cast<std::int64_t>(random() % 5)};
  }
  return terms;
}

class BinsBlock : public ::testing::TestWithParam<std::tuple<Index, int>> {
 protected:
  Index size() const { return std::get<0>(GetParam()); }
  int bins() const { return std::get<1>(GetParam()); }
  Block block_of(const std::vector<Term>& terms) const {
    Block block(size(), bins());
    for (const Term& term : terms) block.add(term.i, term.value, term.source);
    return block;
  }
};
INSTANTIATE_TEST_SUITE_P(Sizes, BinsBlock,
                         ::testing::Combine(::testing::Values<Index>(1, 2, 3, 17), ::testing::Values(3, 5)));

TEST_P(BinsBlock, HoldsItsPartsWithoutOverlap) {
  Block block(size(), bins());
  const BinsView view = block.view();
  const auto at = [&](const void* p) { return reinterpret_cast<const std::byte*>(p) - block.data(); };
  EXPECT_EQ(at(view.bin), static_cast<std::ptrdiff_t>(sizeof(BinsHeader)));
  EXPECT_EQ(at(view.top), at(view.bin) + 8 * size() * bins());
  EXPECT_EQ(at(view.nonfinite), at(view.top) + 2 * size());
  EXPECT_LE(at(view.nonfinite) + size(), static_cast<std::ptrdiff_t>(statistics::block_bytes(size(), bins())));
  EXPECT_EQ(statistics::block_bytes(size(), bins()) % 8, 0u);
}

/// Two blocks of the same terms are the same bytes, from the header to the padding.
TEST_P(BinsBlock, BytesDependOnTheSetOfTermsAlone) {
  Random random(1);
  for (int trial = 0; trial < 60; ++trial) {
    std::vector<Term> terms = random_terms(size(), 1 + random() % 60, trial % 2 != 0, random);
    const Block expected = block_of(terms);
    for (int order = 0; order < 10; ++order) {
      std::shuffle(terms.begin(), terms.end(), random);
      ASSERT_EQ(block_of(terms), expected) << "trial " << trial;
      const auto middle = terms.begin() + static_cast<std::ptrdiff_t>(random() % terms.size());
      const Block left = block_of({terms.begin(), middle});
      const Block right = block_of({middle, terms.end()});
      Block left_right = left;
      left_right.merge(right);
      Block right_left = right;
      right_left.merge(left);
      ASSERT_EQ(left_right, expected) << "trial " << trial;
      ASSERT_EQ(right_left, expected) << "trial " << trial;
    }
  }
}

TEST_P(BinsBlock, MergesAssociatively) {
  Random random(2);
  for (int trial = 0; trial < 60; ++trial) {
    const Block a = block_of(random_terms(size(), random() % 20, true, random));
    const Block b = block_of(random_terms(size(), random() % 20, true, random));
    const Block c = block_of(random_terms(size(), random() % 20, true, random));
    Block left = a;
    left.merge(b);
    left.merge(c);
    Block bc = b;
    bc.merge(c);
    Block right = a;
    right.merge(bc);
    ASSERT_EQ(left, right) << "trial " << trial;
  }
}

TEST_P(BinsBlock, ZeroBytesAreTheEmptySet) {
  Random random(3);
  const Block some = block_of(random_terms(size(), 20, true, random));
  Block zeros = Block::zeros(size(), bins());
  zeros.merge(some);
  EXPECT_EQ(zeros, some);
  Block more = some;
  more.merge(Block::zeros(size(), bins()));
  EXPECT_EQ(more, some);
  Block still_zeros = Block::zeros(size(), bins());
  still_zeros.merge(Block::zeros(size(), bins()));
  EXPECT_EQ(still_zeros, Block::zeros(size(), bins()));
  Block empty(size(), bins());
  empty.merge(Block::zeros(size(), bins()));
  EXPECT_EQ(empty, Block(size(), bins()));
  Block started(size(), bins());
  started.merge(some);
  EXPECT_EQ(started, some);
}

TEST_P(BinsBlock, NamesTheLowestSourceAndThereTheLowestAccumulator) {
  const double nan = std::nan("");
  const double infinity = std::numeric_limits<double>::infinity();
  const Index last = size() - 1;
  std::vector<Term> terms = {{0, 1.0, 0}, {last, nan, 3}, {last, infinity, 2}, {0, -infinity, 4}, {0, nan, 3}};
  std::sort(terms.begin(), terms.end(), [](const Term& a, const Term& b) { return a.source < b.source; });
  do {
    Block block = block_of(terms);
    ASSERT_EQ(block.header().nonfinite_terms, 4);
    ASSERT_EQ(block.header().offender.source, 2);
    ASSERT_EQ(block.header().offender.accumulator, last);
  } while (std::next_permutation(terms.begin(), terms.end(), [](const Term& a, const Term& b) {
    return std::tie(a.source, a.i) < std::tie(b.source, b.i);
  }));
  Block block = block_of({{last, nan, 7}, {0, nan, 7}});
  EXPECT_EQ(block.header().offender.accumulator, 0);
  EXPECT_FALSE(Block(size(), bins()).header().offender.exists());
}

TEST_P(BinsBlock, AccumulatorsDoNotTouchEachOther) {
  Random random(4);
  for (Index i = 0; i < size(); ++i) {
    Block block = block_of(random_terms(size(), 30, false, random));
    Block before = block;
    block.add(i, 0x1.234p100, 0);
    for (Index other = 0; other < size(); ++other) {
      if (other == i) continue;
      ASSERT_EQ(block.view().top[other], before.view().top[other]);
      for (int k = 0; k < bins(); ++k) {
        ASSERT_EQ(block.view().bin[k * size() + other], before.view().bin[k * size() + other]);
      }
    }
  }
}

}  // namespace
}  // namespace syncbn::testing
