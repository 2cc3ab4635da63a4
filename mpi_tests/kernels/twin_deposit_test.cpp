// SPDX-License-Identifier: MIT
// Deposits: every table leaves the bins that statistics/bins.hpp defines, or, where a value does not fit its window,
// stops at the same strip with that strip's bins untouched.
#include <algorithm>

#include "kernel_inputs.hpp"
#include "kernels/one.hpp"
#include "statistics/bins.hpp"

namespace syncbn::testing {
namespace {

using kernels::BinColumns;
using kernels::KernelTable;
using kernels::kStrip;
using kernels::Mean;
using kernels::PairRows;
using statistics::kBinWidth;
using statistics::kTopHalf;

TEST(KernelConstants, AreThoseOfTheAccumulators) {
  EXPECT_EQ(kernels::kTopHalf, statistics::kTopHalf);
  EXPECT_EQ(kernels::kNextBin, std::ldexp(1.0, -kBinWidth));
  EXPECT_LE(kernels::bins_for(DataType::f64), statistics::kMaxBins);
}

double magic_of(int top) { return std::ldexp(0x1.8p52 + static_cast<double>(kTopHalf), kBinWidth * top); }

/// 2C accumulators as the kernels and as the definition see them, all windows at chosen tops.
class Columns {
 public:
  Columns(Index channels, int bins)
      : channels_(channels), bins_(bins), bin_(2 * channels * bins), magic_(2 * channels) {
    top_.assign(static_cast<std::size_t>(2 * channels), 0);
    nonfinite_.assign(top_.size(), 0);
    for (std::int64_t& bin : bin_) bin = 1000003;  // must only be added to
    for (Index i = 0; i < 2 * channels; ++i) set_top(i, 0);
  }
  void set_top(Index i, int top) {
    top_[static_cast<std::size_t>(i)] = static_cast<std::int16_t>(top);
    magic_[i] = magic_of(top);
  }
  void set_magic(Index i, double magic) { magic_[i] = magic; }
  /// No window: zeros only.
  void close(Index i) {
    top_[static_cast<std::size_t>(i)] = statistics::kNoWindow;
    magic_[i] = (0x1.8p52 + static_cast<double>(kTopHalf)) * 0x1p-1074;
  }
  int top(Index i) const { return top_[static_cast<std::size_t>(i)]; }
  BinColumns a() { return {bin_.data(), 2 * channels_, magic_.data()}; }
  BinColumns b() { return {bin_.data() + channels_, 2 * channels_, magic_.data() + channels_}; }
  statistics::BinsView view() { return {2 * channels_, bins_, bin_.data(), top_.data(), nonfinite_.data()}; }
  void copy_bins(const Columns& other) { std::copy_n(other.bin_.data(), bin_.count(), bin_.data()); }
  bool fits(Index i, double value) const {
    return std::isfinite(value) && (value == 0.0 || statistics::top_for(value) <= top(i));
  }
  ::testing::AssertionResult same_bins(const Columns& wanted) const {
    for (Index n = 0; n < bin_.count(); ++n) {
      if (bin_[n] == wanted.bin_[n]) continue;
      const Index i = n % (2 * channels_);
      return ::testing::AssertionFailure()
             << "bin " << n / (2 * channels_) << " of channel " << i % channels_ << " of " << channels_
             << (i < channels_ ? " (a)" : " (b)") << ": got " << bin_[n] << ", wanted " << wanted.bin_[n];
    }
    return ::testing::AssertionSuccess();
  }

 private:
  Index channels_;
  int bins_;
  Guarded<std::int64_t> bin_;
  Guarded<double> magic_;
  std::vector<std::int16_t> top_;
  std::vector<std::uint8_t> nonfinite_;
};

struct Pairs {
  Pairs(Index row_count, Index channels, Index padding, Index shift)
      : rows(row_count), stride(channels + padding), c(channels), a(rows * stride, shift), b(rows * stride, shift) {}
  PairRows view() const { return {a.data(), b.data(), rows, stride, c}; }
  Index rows, stride, c;
  Guarded<double> a, b;
};

/// What a deposit kernel must do, by definition: strips in order, up to the first with a value that does not fit.
Index deposit_by_definition(const PairRows& rows, Columns& columns, Index from) {
  for (Index begin = from; begin < rows.channels; begin += kStrip) {
    const Index end = std::min(begin + kStrip, rows.channels);
    for (Index r = 0; r < rows.rows; ++r) {
      for (Index c = begin; c < end; ++c) {
        if (!columns.fits(c, rows.a[r * rows.stride + c])) return begin;
        if (!columns.fits(rows.channels + c, rows.b[r * rows.stride + c])) return begin;
      }
    }
    for (Index r = 0; r < rows.rows; ++r) {
      for (Index c = begin; c < end; ++c) {
        statistics::deposit(columns.view(), c, rows.a[r * rows.stride + c]);
        statistics::deposit(columns.view(), rows.channels + c, rows.b[r * rows.stride + c]);
      }
    }
  }
  return rows.channels;
}

/// A value for a window: within its range, and often where rounding decides.
double value_for(int top, Random& random) {
  const double half = static_cast<double>(kTopHalf);
  const double ends[] = {half - 1, -half, half - 0.75, std::nextafter(half - 0.5, 0.0), -half - 0.25, -half - 0.5, 0.5,
                         -0.5,     1.5,   -2.5,        std::nextafter(0.5, 1.0),        0.0,          -0.0};
  const int bin = top - static_cast<int>(random() % 4);
  double value = 0.0;
  if (random() % 3 == 0) {
    value = std::ldexp(ends[random() % std::size(ends)], kBinWidth * bin);
  } else {
    value = std::ldexp(static_cast<double>(static_cast<std::int64_t>(random()) >> (random() % 30)),
                       kBinWidth * top + static_cast<int>(random() % 40) - 68);
  }
  return value == 0.0 || statistics::top_for(value) <= top ? value : 0.25;
}

/// A value that does not fit.
double misfit_for(int top, Random& random) {
  const double half = static_cast<double>(kTopHalf);
  const double infinity = std::numeric_limits<double>::infinity();
  const double values[] = {half,      half - 0.5, std::nextafter(-half - 0.5, -infinity),
                           -half - 1, 2 * half,   -4 * half,
                           0x1p52,    -0x1p53,    0x1p200,
                           infinity,  -infinity,  std::nan("")};
  return std::ldexp(values[random() % std::size(values)], kBinWidth * top);
}

template <class T>
class Deposit : public Twin<T> {
 protected:
  static constexpr int kBins = kernels::bins_for(DataTypeOf<T>::value);
  /// The plain table too: the definition is a third party.
  template <class Body>
  void for_each_table(const Body& body) const {
    body(this->plain());
    if (!::testing::Test::HasFatalFailure()) this->for_each_isa(body);
  }
};
TYPED_TEST_SUITE(Deposit, ElementTypes);

constexpr Index kDepositChannels[] = {1, 3, 15, 16, 17, 31, 32, 33, 47, 64, 67};

TYPED_TEST(Deposit, PairsThatFit) {
  Random random(1);
  this->for_each_table([&](const KernelTable& table) {
    for (const Index channels : kDepositChannels) {
      for (const Index row_count : {0, 1, 2, 7, 32, 100}) {
        Pairs pairs(row_count, channels, static_cast<Index>(random() % 4), static_cast<Index>(random() % 4));
        Columns got(channels, this->kBins);
        Columns wanted(channels, this->kBins);
        for (Index i = 0; i < 2 * channels; ++i) {
          const int top = static_cast<int>(random() % 43) - 16;  // 26 is the highest that kernels can cut
          got.set_top(i, top);
          wanted.set_top(i, top);
        }
        for (Index r = 0; r < row_count; ++r) {
          for (Index c = 0; c < channels; ++c) {
            pairs.a[r * pairs.stride + c] = value_for(got.top(c), random);
            pairs.b[r * pairs.stride + c] = value_for(got.top(channels + c), random);
          }
        }
        ASSERT_EQ(table.deposit_pairs(pairs.view(), got.a(), got.b(), 0), channels);
        ASSERT_EQ(deposit_by_definition(pairs.view(), wanted, 0), channels);
        ASSERT_TRUE(got.same_bins(wanted)) << "C " << channels << " rows " << row_count;
      }
    }
  });
}

TYPED_TEST(Deposit, StopsAtTheStripOfAMisfitAndLeavesItUntouched) {
  Random random(2);
  this->for_each_table([&](const KernelTable& table) {
    for (int trial = 0; trial < 1500; ++trial) {
      const Index channels = kDepositChannels[random() % std::size(kDepositChannels)];
      const Index row_count = 1 + static_cast<Index>(random() % 20);
      Pairs pairs(row_count, channels, 0, static_cast<Index>(random() % 4));
      Columns got(channels, this->kBins);
      Columns wanted(channels, this->kBins);
      for (Index n = 0; n < row_count * channels; ++n) {
        pairs.a[n] = value_for(0, random);
        pairs.b[n] = value_for(0, random);
      }
      for (int misfits = 1 + static_cast<int>(random() % 3); misfits > 0; --misfits) {
        const auto at = static_cast<Index>(random() % static_cast<std::uint64_t>(row_count * channels));
        (random() % 2 != 0 ? pairs.a : pairs.b)[at] = misfit_for(0, random);
      }
      const Index from =
          kStrip * static_cast<Index>(random() % static_cast<std::uint64_t>((channels + kStrip - 1) / kStrip));
      const Index stop = deposit_by_definition(pairs.view(), wanted, from);
      ASSERT_EQ(table.deposit_pairs(pairs.view(), got.a(), got.b(), from), stop) << "trial " << trial;
      ASSERT_TRUE(got.same_bins(wanted)) << "trial " << trial << " stop " << stop << " of " << channels;
    }
  });
}

/// The two magic numbers for windows that are not open.
TYPED_TEST(Deposit, ClosedWindowsTakeZerosOrNothing) {
  Random random(3);
  const double only_zeros = (0x1.8p52 + static_cast<double>(kTopHalf)) * 0x1p-1074;
  const double nothing = std::numeric_limits<double>::infinity();
  this->for_each_table([&](const KernelTable& table) {
    for (const Index channels : kDepositChannels) {
      Pairs pairs(5, channels, 0, 0);
      for (Index n = 0; n < 5 * channels; ++n) {
        pairs.a[n] = n % 2 == 0 ? 0.0 : -0.0;
        pairs.b[n] = value_for(0, random);
      }
      Columns got(channels, this->kBins);
      Columns wanted(channels, this->kBins);
      for (Index c = 0; c < channels; ++c) got.set_magic(c, only_zeros);
      deposit_by_definition(pairs.view(), wanted, 0);
      ASSERT_EQ(table.deposit_pairs(pairs.view(), got.a(), got.b(), 0), channels);
      ASSERT_TRUE(got.same_bins(wanted)) << "zeros into a closed window, C " << channels;

      got.copy_bins(wanted);
      for (const double value : {static_cast<double>(std::numeric_limits<float>::denorm_min()), 0x1p-298, -0x1p-298,
                                 0x1p-500, 1.0, -3e38, std::nan(""), nothing, -nothing}) {
        const auto at = static_cast<Index>(random() % static_cast<std::uint64_t>(5 * channels));
        const double before = pairs.a[at];
        pairs.a[at] = value;
        const Index stop = at % channels / kStrip * kStrip;
        deposit_by_definition({pairs.a.data(), pairs.b.data(), 0, channels, channels}, wanted, 0);
        Columns untouched(channels, this->kBins);
        untouched.copy_bins(got);
        const Index stopped = table.deposit_pairs(pairs.view(), got.a(), got.b(), stop);
        ASSERT_EQ(stopped, stop) << "value " << value;
        ASSERT_TRUE(got.same_bins(untouched)) << "value " << value;
        pairs.a[at] = before;
      }
      for (Index c = 0; c < channels; ++c) got.set_magic(c, nothing);
      Columns untouched(channels, this->kBins);
      untouched.copy_bins(got);
      ASSERT_EQ(table.deposit_pairs(pairs.view(), got.a(), got.b(), 0), 0);
      ASSERT_TRUE(got.same_bins(untouched));
    }
  });
}

/// 2-D tensors: deposit_* take the pairs that expand_* write down.
TYPED_TEST(Deposit, ValuesAndGradientsAreThoseOfTheirExpansion) {
  Random random(4);
  constexpr Index kValueRows = kernels::value_rows_for(DataTypeOf<TypeParam>::value);
  this->for_each_table([&](const KernelTable& table) {
    for (const Kind kind : kAllKinds) {
      for (const Index channels : kDepositChannels) {
        for (const Index row_count : {1, 2, 31, 32}) {
          Guarded<TypeParam> x(row_count * channels, static_cast<Index>(random() % 4));
          Guarded<TypeParam> dy(row_count * channels, static_cast<Index>(random() % 4));
          Guarded<double> mean(2 * channels);
          fill(x, kind, random);
          fill(dy, kind, random);
          fill(mean, kind == Kind::special ? Kind::ordinary : kind, random);
          const Mean mean_view{mean.data(), mean.data() + channels};
          Columns got(channels, this->kBins);
          Columns wanted(channels, this->kBins);
          for (Index i = 0; i < 2 * channels; ++i) {
            const int top = random() % 8 == 0 ? 0 : 1;  // some squares of 1e6 do not fit 0
            got.set_top(i, top);
            wanted.set_top(i, top);
          }
          Pairs pairs(kValueRows * row_count, channels, 0, 0);
          table.expand_values(x.data(), row_count, channels, 0, channels, pairs.a.data(), pairs.b.data());
          if (table.deposit_values != nullptr) {
            const Index stop = deposit_by_definition(pairs.view(), wanted, 0);
            ASSERT_EQ(table.deposit_values(x.data(), row_count, channels, channels, got.a(), got.b(), 0), stop);
            ASSERT_TRUE(got.same_bins(wanted)) << "C " << channels << " rows " << row_count;
          }
          Pairs gradients(row_count, channels, 0, 0);
          table.expand_gradients(x.data(), dy.data(), row_count, channels, mean_view, 0, channels, gradients.a.data(),
                                 gradients.b.data());
          const Index stop = deposit_by_definition(gradients.view(), wanted, 0);
          ASSERT_EQ(table.deposit_gradients(x.data(), dy.data(), row_count, channels, channels, mean_view, got.a(),
                                            got.b(), 0),
                    stop);
          ASSERT_TRUE(got.same_bins(wanted)) << "C " << channels << " rows " << row_count;
        }
      }
    }
  });
}

/// How the f32 values of a strip lie to each other: what the kernels' cheaper ways look at.
enum class Spread { narrow, wide, huge, powers, sparse, constant };
constexpr Spread kAllSpreads[] = {Spread::narrow, Spread::wide,   Spread::huge,
                                  Spread::powers, Spread::sparse, Spread::constant};

float value_of(Spread spread, double scale, Random& random) {
  const double uniform = 2.0 * static_cast<double>(random() >> 11) * 0x1p-53 - 1.0;
  const auto tiny = [&](int most) { return std::ldexp(uniform, -static_cast<int>(random() % most)); };
  switch (spread) {
    case Spread::narrow:
      return static_cast<float>(scale * std::copysign(1.0 + std::fabs(uniform), uniform));
    case Spread::wide:
      return static_cast<float>(scale * tiny(random() % 16 == 0 ? 30 : 8));
    case Spread::huge:
      return random() % 64 == 0 ? std::numeric_limits<float>::denorm_min() : static_cast<float>(scale * tiny(90));
    case Spread::powers:
      return static_cast<float>(scale * std::copysign(std::ldexp(1.0, -static_cast<int>(random() % 26)), uniform));
    case Spread::sparse:
      return random() % 2 == 0 ? std::copysign(0.0f, static_cast<float>(uniform)) : static_cast<float>(scale * uniform);
    case Spread::constant:
      break;
  }
  return static_cast<float>(scale);
}

/// Windows as the values need them; now and then higher, as another rank's values may have made them, or too low.
void open_windows(const PairRows& pairs, Random& random, Columns& got, Columns& wanted) {
  const int raise_all = random() % 4 == 0 ? static_cast<int>(random() % 3) : 0;
  for (Index i = 0; i < 2 * pairs.channels; ++i) {
    int top = statistics::kNoWindow;
    for (Index r = 0; r < pairs.rows; ++r) {
      const double value = (i < pairs.channels ? pairs.a : pairs.b)[r * pairs.stride + i % pairs.channels];
      if (value != 0.0 && std::isfinite(value)) top = std::max(top, statistics::top_for(value));
    }
    const int shift = random() % 200 == 0 ? -1 : raise_all;
    for (Columns* columns : {&got, &wanted}) {
      top == statistics::kNoWindow ? columns->close(i) : columns->set_top(i, top + shift);
    }
  }
}

template <class T>
class DepositFloats : public ::testing::Test {
 protected:
  static constexpr DataType kType = DataTypeOf<T>::value;
  static constexpr int kScales = std::is_same_v<T, float16> ? 20 : 120;  // powers of two
};
using FloatTypes = ::testing::Types<float, bfloat16, float16>;
TYPED_TEST_SUITE(DepositFloats, FloatTypes);

/// All the ways that values of f32 and narrower are deposited in leave the bins of the definition.
TYPED_TEST(DepositFloats, OfEveryScaleAndSpread) {
  Random random(6);
  for (int trial = 0; trial < (kIsHalf<TypeParam> ? 2000 : 4000); ++trial) {
    const Index channels = kDepositChannels[random() % std::size(kDepositChannels)];
    const Index row_counts[] = {1, 2, 3, 16, 63, 64, 65, 150};
    const Index row_count = row_counts[random() % std::size(row_counts)];
    Guarded<TypeParam> x(row_count * channels, static_cast<Index>(random() % 4));
    Guarded<TypeParam> dy(row_count * channels, static_cast<Index>(random() % 4));
    Guarded<double> mean(2 * channels);
    std::fill_n(mean.data(), 2 * channels, 0.0);
    const double strip_scale = std::ldexp(1.0, static_cast<int>(random() % (trial % 2 == 0 ? this->kScales : 12)) - 8);
    for (Index c = 0; c < channels; ++c) {
      const Spread spread = kAllSpreads[random() % 8 == 0 || c == 0 ? random() % std::size(kAllSpreads) : trial % 6];
      double scale = std::ldexp(strip_scale, random() % 10 == 0 ? -static_cast<int>(random() % 60) : 0);
      if (random() % 16 == 0) scale = 0.0;  // a dead channel
      for (Index r = 0; r < row_count; ++r) {
        x[r * channels + c] = TypeParam(value_of(spread, scale, random));
        dy[r * channels + c] = TypeParam(value_of(spread, scale * 0x1p-9, random));
      }
      mean[c] = scale * 0.017;
    }
    if (trial % 10 == 0) {
      const float odd[] = {std::nanf(""), -std::numeric_limits<float>::infinity(), 3e38f};
      const auto count = static_cast<std::uint64_t>(row_count * channels);
      (random() % 2 == 0 ? x : dy)[static_cast<Index>(random() % count)] = TypeParam(odd[random() % std::size(odd)]);
    }
    const Mean mean_view{mean.data(), mean.data() + channels};
    Pairs values(row_count, channels, 0, 0);
    Pairs gradients(row_count, channels, 0, 0);
    const KernelTable& plain = *kernels::table_for(this->kType, kernels::Isa::scalar);
    plain.expand_values(x.data(), row_count, channels, 0, channels, values.a.data(), values.b.data());
    plain.expand_gradients(x.data(), dy.data(), row_count, channels, mean_view, 0, channels, gradients.a.data(),
                           gradients.b.data());
    const std::uint64_t windows_seed = random();
    for (const kernels::Isa isa : vector_isas()) {
      const KernelTable& table = *kernels::table_for(this->kType, isa);
      Random windows(windows_seed);
      for (const bool forward : {true, false}) {
        SCOPED_TRACE(std::string(name_of(isa)) + (forward ? " values" : " gradients") + " trial " +
                     std::to_string(trial) + " C " + std::to_string(channels) + " rows " + std::to_string(row_count));
        const PairRows pairs = forward ? values.view() : gradients.view();
        Columns got(channels, 3);
        Columns wanted(channels, 3);
        open_windows(pairs, windows, got, wanted);
        const Index stop = deposit_by_definition(pairs, wanted, 0);
        const Index stopped = forward
                                  ? table.deposit_values(x.data(), row_count, channels, channels, got.a(), got.b(), 0)
                                  : table.deposit_gradients(x.data(), dy.data(), row_count, channels, channels,
                                                            mean_view, got.a(), got.b(), 0);
        ASSERT_EQ(stopped, stop);
        ASSERT_TRUE(got.same_bins(wanted));
      }
    }
  }
}

/// The extremes that windows are opened by: every table's are the plain ones.
TYPED_TEST(Deposit, ExtremesAreThoseOfThePairs) {
  Random random(7);
  this->for_each_isa([&](const KernelTable& table) {
    for (const Kind kind : kAllKinds) {
      for (const Index width : {1, 7, 15, 16}) {
        constexpr Index kChannels = 48;
        constexpr Index kRowCount = 9;
        Guarded<TypeParam> x(kRowCount * kChannels, static_cast<Index>(random() % 4));
        Guarded<TypeParam> dy(kRowCount * kChannels);
        Guarded<double> mean(2 * kChannels);
        fill(x, kind, random);
        fill(dy, kind, random);
        fill(mean, Kind::ordinary, random);
        const Mean mean_view{mean.data(), mean.data() + kChannels};
        for (Index from = 0; from < kChannels; from += kStrip) {
          kernels::StripExtremes got, wanted;
          table.value_extremes(x.data(), kRowCount, kChannels, from, width, got);
          this->plain().value_extremes(x.data(), kRowCount, kChannels, from, width, wanted);
          ASSERT_TRUE(same_bits(got.a, wanted.a, width));
          ASSERT_TRUE(same_bits(got.b, wanted.b, width));
          table.gradient_extremes(x.data(), dy.data(), kRowCount, kChannels, mean_view, from, width, got);
          this->plain().gradient_extremes(x.data(), dy.data(), kRowCount, kChannels, mean_view, from, width, wanted);
          ASSERT_TRUE(same_bits(got.a, wanted.a, width));
          ASSERT_TRUE(same_bits(got.b, wanted.b, width));
        }
      }
    }
  });
}

TYPED_TEST(Deposit, ExpansionsOfAStripAreThoseOfTheWhole) {
  Random random(5);
  constexpr Index kValueRows = kernels::value_rows_for(DataTypeOf<TypeParam>::value);
  this->for_each_table([&](const KernelTable& table) {
    for (const Index channels : kDepositChannels) {
      constexpr Index kRowCount = 5;
      Guarded<TypeParam> x(kRowCount * channels);
      Guarded<TypeParam> dy(kRowCount * channels);
      Guarded<double> mean(2 * channels);
      fill(x, Kind::special, random);
      fill(dy, Kind::special, random);
      fill(mean, Kind::ordinary, random);
      const Mean mean_view{mean.data(), mean.data() + channels};
      Pairs values(kValueRows * kRowCount, channels, 0, 0);
      Pairs gradients(kRowCount, channels, 0, 0);
      this->plain().expand_values(x.data(), kRowCount, channels, 0, channels, values.a.data(), values.b.data());
      this->plain().expand_gradients(x.data(), dy.data(), kRowCount, channels, mean_view, 0, channels,
                                     gradients.a.data(), gradients.b.data());
      for (Index from = 0; from < channels; from += kStrip) {
        const Index width = std::min(kStrip, channels - from);
        Pairs part(kValueRows * kRowCount, width, 0, 0);
        table.expand_values(x.data(), kRowCount, channels, from, width, part.a.data(), part.b.data());
        for (Index r = 0; r < kValueRows * kRowCount; ++r) {
          ASSERT_TRUE(same_bits(&part.a[r * width], &values.a[r * channels + from], width));
          ASSERT_TRUE(same_bits(&part.b[r * width], &values.b[r * channels + from], width));
        }
        table.expand_gradients(x.data(), dy.data(), kRowCount, channels, mean_view, from, width, part.a.data(),
                               part.b.data());
        for (Index r = 0; r < kRowCount; ++r) {
          ASSERT_TRUE(same_bits(&part.a[r * width], &gradients.a[r * channels + from], width));
          ASSERT_TRUE(same_bits(&part.b[r * width], &gradients.b[r * channels + from], width));
        }
      }
    }
  });
}

}  // namespace
}  // namespace syncbn::testing
