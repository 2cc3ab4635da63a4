// SPDX-License-Identifier: MIT
// Element passes: every vector table gives the bits of the plain one, and an element those of its formula wherever it
// stands.
#include <algorithm>

#include "kernel_inputs.hpp"

namespace syncbn::testing {
namespace {

using kernels::BackwardCoefficients;
using kernels::BlockShape;
using kernels::ForwardCoefficients;
using kernels::KernelTable;

template <class T>
class TwinElements : public Twin<T> {};
TYPED_TEST_SUITE(TwinElements, ElementTypes);

/// Six rows of C coefficients, enough for every pass.
class Coefficients {
 public:
  Coefficients(Index channels, Kind kind, Random& random) : numbers_(6 * channels), channels_(channels) {
    fill(numbers_, kind, random);
  }
  const double* row(Index r) const { return numbers_.data() + r * channels_; }
  ForwardCoefficients forward() const { return {{row(0), row(1)}, row(2), row(3)}; }
  BackwardCoefficients backward() const { return {{row(0), row(1)}, row(2), row(3), row(4), row(5)}; }

 private:
  Guarded<double> numbers_;
  Index channels_;
};

/// Runs one pass with both tables, into memory of its own and in place; the memory in front of the output must stay.
/// run(table, x, dy, out)
template <class T, class Run>
void compare(const KernelTable& plain, const KernelTable& table, BlockShape shape, Kind kind, Random& random,
             const Run& run) {
  const Index count = element_count(shape);
  Guarded<T> x(count, static_cast<Index>(random() % 4));
  Guarded<T> dy(count, static_cast<Index>(random() % 4));
  fill(x, kind, random);
  fill(dy, kind, random);
  Guarded<T> wanted(count);
  run(plain, x.data(), dy.data(), wanted.data());

  constexpr Index kFront = 3;
  Guarded<T> framed(count + kFront, static_cast<Index>(random() % 4));
  std::fill_n(framed.data(), kFront, T(42));
  run(table, x.data(), dy.data(), framed.data() + kFront);
  ASSERT_TRUE(same_bits(framed.data() + kFront, wanted.data(), count));
  for (Index i = 0; i < kFront; ++i) ASSERT_TRUE(same_bits(framed[i], T(42)));

  Guarded<T> overwritten(count, static_cast<Index>(random() % 4));
  std::copy_n(dy.data(), count, overwritten.data());
  run(table, x.data(), overwritten.data(), overwritten.data());
  ASSERT_TRUE(same_bits(overwritten, wanted)) << "in place of dy";
  std::copy_n(x.data(), count, overwritten.data());
  run(table, overwritten.data(), dy.data(), overwritten.data());
  ASSERT_TRUE(same_bits(overwritten, wanted)) << "in place of x";
}

template <class T, class Run>
void compare_all(const Twin<T>&, const KernelTable& plain, const KernelTable& table, const Run& run) {
  Random random(1);
  for (const Kind kind : kAllKinds) {
    for (const Index samples : {1, 3}) {
      for_each_shape(samples, [&](BlockShape shape) {
        const Coefficients coefficients(shape.sample.channels, kind, random);
        shape.streams = random() % 2 == 0;  // never a matter of values
        ASSERT_NO_FATAL_FAILURE(compare<T>(plain, table, shape, kind, random,
                                           [&](const KernelTable& kernel, const T* x, const T* dy, T* out) {
                                             run(kernel, x, dy, out, shape, coefficients);
                                           }));
      });
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

/// Channel counts about the borders between the ways to walk rows; enough rows for each way and its rest.
constexpr Index kWideRows[] = {127, 128, 129, 257, 512, 513, 520, 767, 768, 769, 1029};

TYPED_TEST(TwinElements, WideRows) {
  Random random(7);
  this->for_each_isa([&](const KernelTable& table) {
    for (const Index channels : kWideRows) {
      for (const Index positions : {1, 2, 3, 11}) {
        for (const bool streams : {false, true}) {
          const BlockShape shape{positions == 1 ? 11 : 1, {channels, positions, true}, streams};
          SCOPED_TRACE(text_of(shape));
          const Coefficients k(channels, Kind::ordinary, random);
          compare<TypeParam>(this->plain(), table, shape, Kind::ordinary, random,
                             [&](const KernelTable& kernel, const TypeParam* x, const TypeParam*, TypeParam* out) {
                               kernel.normalize(x, out, shape, k.forward(), {});
                             });
          compare<TypeParam>(this->plain(), table, shape, Kind::ordinary, random,
                             [&](const KernelTable& kernel, const TypeParam* x, const TypeParam* dy, TypeParam* out) {
                               kernel.input_gradient(x, dy, out, shape, k.backward());
                             });
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
    }
  });
}

TYPED_TEST(TwinElements, Normalize) {
  this->for_each_isa([&](const KernelTable& table) {
    compare_all(*this, this->plain(), table,
                [](const KernelTable& kernel, const TypeParam* x, const TypeParam*, TypeParam* out, BlockShape shape,
                   const Coefficients& k) { kernel.normalize(x, out, shape, k.forward(), {}); });
  });
}

TYPED_TEST(TwinElements, NormalizeWithResidualAndRelu) {
  this->for_each_isa([&](const KernelTable& table) {
    for (const bool relu : {false, true}) {
      for (const bool residual : {false, true}) {
        compare_all(*this, this->plain(), table,
                    [&](const KernelTable& kernel, const TypeParam* x, const TypeParam* z, TypeParam* out,
                        BlockShape shape, const Coefficients& k) {
                      kernel.normalize(x, out, shape, k.forward(), {residual ? z : nullptr, relu});
                    });
      }
    }
  });
}

TYPED_TEST(TwinElements, MaskGradient) {
  this->for_each_isa([&](const KernelTable& table) {
    compare_all(*this, this->plain(), table,
                [](const KernelTable& kernel, const TypeParam* y, const TypeParam* dy, TypeParam* out, BlockShape shape,
                   const Coefficients&) { kernel.mask_gradient(dy, y, out, shape); });
  });
}

/// Some channels of a wider tensor, with outputs past the cache where their place allows it: the same elements as
/// without the others, and those untouched.
TYPED_TEST(TwinElements, PartOfTheChannels) {
  Random random(6);
  const auto check = [&](const KernelTable& table) {
    for_each_shape(3, [&](BlockShape shape) {
      const Index channels = shape.sample.channels;
      const Index positions = shape.sample.positions;
      const Index pitch = channels + 5;
      const Coefficients k(channels, Kind::ordinary, random);
      Guarded<TypeParam> x(shape.samples * pitch * positions);
      fill(x, Kind::ordinary, random);
      Guarded<TypeParam> y(x.count());
      std::fill_n(y.data(), y.count(), TypeParam(42));
      BlockShape part = shape;
      part.sample.pitch = pitch;
      part.streams = random() % 2 == 0;
      const Index from = part.sample.is_row_major() ? 2 : 2 * positions;
      table.normalize(x.data() + from, y.data() + from, part, k.forward(), {});
      const Index run = part.sample.is_row_major() ? 1 : positions;  // elements of a channel that lie together
      for (Index i = 0; i < x.count(); ++i) {
        const Index c = i / run % pitch - 2;
        if (c < 0 || c >= channels) {
          ASSERT_EQ(y[i], TypeParam(42)) << "element " << i << " is not in the part";
          continue;
        }
        const ForwardCoefficients all = k.forward();
        TypeParam wanted{};
        this->plain().normalize(x.data() + i, &wanted, {1, {1, 1, false}},
                                {{all.mean.hi + c, all.mean.lo + c}, all.scale + c, all.shift + c}, {});
        ASSERT_EQ(y[i], wanted) << "element " << i;
      }
    });
  };
  check(this->plain());
  this->for_each_isa(check);
}

TYPED_TEST(TwinElements, InputGradient) {
  this->for_each_isa([&](const KernelTable& table) {
    compare_all(*this, this->plain(), table,
                [](const KernelTable& kernel, const TypeParam* x, const TypeParam* dy, TypeParam* out, BlockShape shape,
                   const Coefficients& k) { kernel.input_gradient(x, dy, out, shape, k.backward()); });
  });
}

TYPED_TEST(TwinElements, Scale) {
  this->for_each_isa([&](const KernelTable& table) {
    compare_all(*this, this->plain(), table,
                [](const KernelTable& kernel, const TypeParam*, const TypeParam* dy, TypeParam* out, BlockShape shape,
                   const Coefficients& k) { kernel.scale(dy, out, shape, k.row(0)); });
  });
}

/// What makes "the same bits however the batch is split" true of element passes: a value with its channel's
/// coefficients gives the same result at every place.
TYPED_TEST(TwinElements, AnElementDoesNotKnowWhereItStands) {
  Random random(2);
  const auto check = [&](const KernelTable& table) {
    for_each_shape(2, [&](BlockShape shape) {
      const Index channels = shape.sample.channels;
      const Index count = element_count(shape);
      Coefficients one(1, Kind::ordinary, random);
      std::vector<double> spread;
      for (Index r = 0; r < 6; ++r) spread.insert(spread.end(), static_cast<std::size_t>(channels), one.row(r)[0]);
      const auto row = [&](Index r) { return spread.data() + r * channels; };
      Guarded<TypeParam> x(count);
      Guarded<TypeParam> dy(count);
      std::fill_n(x.data(), count, TypeParam(0.3));
      std::fill_n(dy.data(), count, TypeParam(-0.7));
      Guarded<TypeParam> y(count);
      Guarded<TypeParam> dx(count);
      table.normalize(x.data(), y.data(), shape, {{row(0), row(1)}, row(2), row(3)}, {});
      table.input_gradient(x.data(), dy.data(), dx.data(), shape, {{row(0), row(1)}, row(2), row(3), row(4), row(5)});
      for (Index i = 1; i < count; ++i) {
        ASSERT_TRUE(same_bits(y[i], y[0])) << "element " << i;
        ASSERT_TRUE(same_bits(dx[i], dx[0])) << "element " << i;
      }
    });
  };
  check(this->plain());
  this->for_each_isa(check);
}

}  // namespace
}  // namespace syncbn::testing
