// SPDX-License-Identifier: MIT
// Extents and strides as DLPack has them: which memory they are, and which would need a copy.
#include <vector>

#include <gtest/gtest.h>

#include "syncbn/tensor_view.hpp"

namespace syncbn::testing {
namespace {

using Extents = std::vector<Index>;

TensorShape shape_of(const Extents& extents, const Extents& strides) {
  return TensorShape::from_strides(extents.data(), strides.empty() ? nullptr : strides.data(), extents.size());
}

TEST(Strides, OfDenseMemoryGiveTheLayout) {
  const TensorShape first = shape_of({2, 3, 4, 5}, {60, 20, 5, 1});
  EXPECT_EQ(first.defect, ShapeDefect::none);
  EXPECT_EQ(first.layout, Layout::channels_first);
  EXPECT_EQ(first, shape_of({2, 3, 4, 5}, {}));

  const TensorShape last = shape_of({2, 3, 4, 5}, {60, 1, 15, 3});
  EXPECT_EQ(last.defect, ShapeDefect::none);
  EXPECT_EQ(last.layout, Layout::channels_last);
  EXPECT_EQ(last.channels, 3);
  EXPECT_EQ(last.positions, 20);
  EXPECT_EQ(shape_of({2, 3, 4}, {12, 1, 3}).layout, Layout::channels_last);
  EXPECT_EQ(shape_of({2, 3, 4, 5, 6}, {360, 1, 90, 18, 3}).layout, Layout::channels_last);
}

TEST(Strides, OfExtentsOfOneAndOfNothingMayBeAnything) {
  EXPECT_EQ(shape_of({1, 3, 4}, {-7, 4, 1}).defect, ShapeDefect::none);
  EXPECT_EQ(shape_of({2, 3, 1, 1}, {3, 1, 99, 99}).defect, ShapeDefect::none);
  EXPECT_EQ(shape_of({2, 1, 4}, {4, 1, 1}).defect, ShapeDefect::none);  // both layouts at once
  EXPECT_EQ(shape_of({0, 3, 4}, {5, 5, 5}).defect, ShapeDefect::none);
}

TEST(Strides, ThatNeedACopyAreADefect) {
  for (const Extents& strides : std::vector<Extents>{{24, 8, 2},    // every second element
                                                     {13, 4, 1},    // rows with a gap
                                                     {12, 1, 4},    // transposed, but not channels-last
                                                     {4, 8, 1},     // samples inside channels
                                                     {12, -4, 1},   // backwards
                                                     {0, 4, 1}}) {  // one sample, repeated
    EXPECT_EQ(shape_of({2, 3, 4}, strides).defect, ShapeDefect::not_dense);
  }
  EXPECT_EQ(shape_of({2, 3}, {1, 2}).defect, ShapeDefect::not_dense);
}

TEST(Strides, DoNotHideDefectsOfExtents) {
  EXPECT_EQ(shape_of({5}, {1}).defect, ShapeDefect::too_few_dimensions);
  EXPECT_EQ(shape_of({2, -3}, {1, 2}).defect, ShapeDefect::negative_extent);
  EXPECT_EQ(shape_of({Index{1} << 40, Index{1} << 40}, {1, 1}).defect, ShapeDefect::overflow);
}

}  // namespace
}  // namespace syncbn::testing
