// SPDX-License-Identifier: MIT
// Sums inside samples: every vector table gives the bits of the plain one.
#include "kernel_inputs.hpp"

namespace syncbn::testing {
namespace {

using kernels::KernelTable;
using kernels::Mean;
using kernels::PlaneSums;

template <class T>
class TwinSums : public Twin<T> {};
TYPED_TEST_SUITE(TwinSums, ElementTypes);

/// (3, C) numbers of plane_sums.
struct Planes {
  explicit Planes(Index channels) : numbers(3 * channels), c(channels) {}
  PlaneSums view() { return {numbers.data(), numbers.data() + c, numbers.data() + 2 * c}; }
  Guarded<double> numbers;
  Index c;
};

TYPED_TEST(TwinSums, PlaneSums) {
  Random random(1);
  this->for_each_isa([&](const KernelTable& table) {
    for (const Kind kind : kAllKinds) {
      for_each_shape(1, [&](kernels::BlockShape shape) {
        Guarded<TypeParam> x(element_count(shape), static_cast<Index>(random() % 4));
        fill(x, kind, random);
        Planes wanted(shape.sample.channels);
        Planes got(shape.sample.channels);
        this->plain().plane_sums(x.data(), shape.sample, wanted.view());
        table.plane_sums(x.data(), shape.sample, got.view());
        ASSERT_TRUE(same_bits(got.numbers, wanted.numbers)) << "kind " << static_cast<int>(kind);
      });
    }
  });
}

TYPED_TEST(TwinSums, MomentRows) {
  Random random(2);
  constexpr Index kRows = kernels::moment_rows_for(DataTypeOf<TypeParam>::value);
  this->for_each_isa([&](const KernelTable& table) {
    for (const Kind kind : kAllKinds) {
      for (const Index channels : kChannelCounts) {
        for (const Index positions : {Index{2}, Index{7}, Index{49}, Index{12544}}) {
          const Index stride = channels + 3;
          Planes planes(channels);
          fill(planes.numbers, kind, random);
          Guarded<double> wanted(2 * kRows * stride);
          Guarded<double> got(2 * kRows * stride);
          this->plain().moment_rows(planes.view(), channels, positions, wanted.data(), wanted.data() + kRows * stride,
                                    stride);
          table.moment_rows(planes.view(), channels, positions, got.data(), got.data() + kRows * stride, stride);
          ASSERT_TRUE(same_bits(got, wanted)) << "C " << channels << " S " << positions;
        }
      }
    }
  });
}

TYPED_TEST(TwinSums, GradientSums) {
  Random random(3);
  this->for_each_isa([&](const KernelTable& table) {
    for (const Kind kind : kAllKinds) {
      for_each_shape(1, [&](kernels::BlockShape shape) {
        const Index channels = shape.sample.channels;
        Guarded<TypeParam> x(element_count(shape), static_cast<Index>(random() % 4));
        Guarded<TypeParam> dy(element_count(shape), static_cast<Index>(random() % 4));
        Guarded<double> mean(2 * channels);
        fill(x, kind, random);
        fill(dy, kind, random);
        fill(mean, kind, random);
        const Mean mean_view{mean.data(), mean.data() + channels};
        Guarded<double> wanted(2 * channels);
        Guarded<double> got(2 * channels);
        this->plain().gradient_sums(x.data(), dy.data(), shape.sample, mean_view, wanted.data(),
                                    wanted.data() + channels);
        table.gradient_sums(x.data(), dy.data(), shape.sample, mean_view, got.data(), got.data() + channels);
        ASSERT_TRUE(same_bits(got, wanted)) << "kind " << static_cast<int>(kind);
      });
    }
  });
}

/// Some channels of rows that have more of them: the bits that they have where they are alone.
TYPED_TEST(TwinSums, OfPartOfTheChannels) {
  Random random(9);
  const auto check = [&](const KernelTable& table) {
    for_each_shape(1, [&](kernels::BlockShape shape) {
      if (!shape.sample.is_row_major()) return;
      const Index channels = shape.sample.channels;
      const Index pitch = channels + 5;
      Guarded<TypeParam> rows(pitch * shape.sample.positions);
      Guarded<TypeParam> x(element_count(shape));
      fill(rows, Kind::ordinary, random);
      for (Index i = 0; i < x.count(); ++i) x[i] = rows[i / channels * pitch + 2 + i % channels];
      kernels::SampleShape part = shape.sample;
      part.pitch = pitch;
      Planes wanted(channels);
      Planes got(channels);
      this->plain().plane_sums(x.data(), shape.sample, wanted.view());
      table.plane_sums(rows.data() + 2, part, got.view());
      ASSERT_TRUE(same_bits(got.numbers, wanted.numbers));
      Guarded<double> mean(2 * channels);
      fill(mean, Kind::ordinary, random);
      const Mean mean_view{mean.data(), mean.data() + channels};
      this->plain().gradient_sums(x.data(), x.data(), shape.sample, mean_view, wanted.view().d, wanted.view().dd);
      table.gradient_sums(rows.data() + 2, rows.data() + 2, part, mean_view, got.view().d, got.view().dd);
      ASSERT_TRUE(same_bits(got.numbers, wanted.numbers));
    });
  };
  check(this->plain());
  this->for_each_isa(check);
}

/// The gradient in front of a ReLU and its sums, in memory of its own, in place, and past the cache.
TYPED_TEST(TwinSums, MaskedGradientSums) {
  Random random(7);
  this->for_each_isa([&](const KernelTable& table) {
    for (const Kind kind : kAllKinds) {
      for_each_shape(1, [&](kernels::BlockShape shape) {
        const Index channels = shape.sample.channels;
        Guarded<TypeParam> x(element_count(shape), static_cast<Index>(random() % 4));
        Guarded<TypeParam> dy(element_count(shape), static_cast<Index>(random() % 4));
        Guarded<TypeParam> y(element_count(shape), static_cast<Index>(random() % 4));
        Guarded<double> mean(2 * channels);
        fill(x, kind, random);
        fill(dy, kind, random);
        fill(y, kind, random);
        fill(mean, kind, random);
        const Mean mean_view{mean.data(), mean.data() + channels};
        Guarded<TypeParam> wanted_g(element_count(shape));
        for (Index i = 0; i < y.count(); ++i) wanted_g[i] = static_cast<double>(y[i]) <= 0.0 ? TypeParam(0) : dy[i];
        Guarded<double> wanted(2 * channels);
        this->plain().gradient_sums(x.data(), wanted_g.data(), shape.sample, mean_view, wanted.data(),
                                    wanted.data() + channels);
        const bool streams = random() % 2 == 0;
        Guarded<TypeParam> g(element_count(shape), static_cast<Index>(random() % 4));
        Guarded<double> got(2 * channels);
        table.masked_gradient_sums(x.data(), dy.data(), y.data(), g.data(), shape.sample, streams, mean_view,
                                   got.data(), got.data() + channels);
        ASSERT_TRUE(same_bits(g, wanted_g));
        ASSERT_TRUE(same_bits(got, wanted)) << "kind " << static_cast<int>(kind);
        table.masked_gradient_sums(x.data(), dy.data(), y.data(), dy.data(), shape.sample, streams, mean_view,
                                   got.data(), got.data() + channels);
        ASSERT_TRUE(same_bits(dy, wanted_g)) << "in place";
        ASSERT_TRUE(same_bits(got, wanted)) << "in place";
      });
    }
  });
}

/// A plane of -0 only: lanes that get nothing must not turn a sum's sign.
TYPED_TEST(TwinSums, OfNegativeZeros) {
  this->for_each_isa([&](const KernelTable& table) {
    for_each_shape(1, [&](kernels::BlockShape shape) {
      Guarded<TypeParam> x(element_count(shape));
      for (TypeParam& value : x) value = TypeParam(-0.0);
      Planes wanted(shape.sample.channels);
      Planes got(shape.sample.channels);
      this->plain().plane_sums(x.data(), shape.sample, wanted.view());
      table.plane_sums(x.data(), shape.sample, got.view());
      ASSERT_TRUE(same_bits(got.numbers, wanted.numbers));
    });
  });
}

}  // namespace
}  // namespace syncbn::testing
