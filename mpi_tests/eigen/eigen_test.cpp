// SPDX-License-Identifier: MIT
// Eigen's matrices and tensors as views: the layer's results are those of plain memory, byte by byte.
#include "syncbn/eigen.hpp"

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/layer_case.hpp"
#include "syncbn/eigen_tensor.hpp"

namespace syncbn::testing {
namespace {

using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ColumnMatrix = Eigen::MatrixXf;

LayerCase<float> a_case(std::vector<Index> spatial = {}, Layout layout = Layout::channels_first) {
  return make_case<float>({.seed = 91, .channels = 4, .spatial = std::move(spatial), .layout = layout, .offset = 2},
                          std::vector<Index>(static_cast<std::size_t>(world_size()), 6));
}

template <class Dense>
bool holds(const Dense& dense, const std::vector<float>& wanted) {
  return static_cast<std::size_t>(dense.size()) == wanted.size() &&
         std::memcmp(dense.data(), wanted.data(), wanted.size() * sizeof(float)) == 0;
}

TEST(Eigen, MatricesWithSamplesInRowsAndInColumns) {
  auto layer_case = a_case();
  BatchNorm layer = make_layer(layer_case);
  const StepResult<float> wanted = run_step(layer, layer_case);

  const RowMatrix x = Eigen::Map<RowMatrix>(layer_case.my_x().values.data(), 6, 4);
  const RowMatrix dy = Eigen::Map<RowMatrix>(layer_case.my_dy().values.data(), 6, 4);
  RowMatrix y(6, 4), dx(6, 4);
  const BatchNormCache cache = layer.forward_train(eigen::samples_in_rows(x), eigen::samples_in_rows(y));
  layer.backward(cache, eigen::samples_in_rows(dy), eigen::samples_in_rows(dx));
  EXPECT_TRUE(holds(y, wanted.y.values));
  EXPECT_TRUE(holds(dx, wanted.dx.values));

  const ColumnMatrix xt = x.transpose();
  ColumnMatrix yt(4, 6);
  Eigen::Ref<const ColumnMatrix> x_ref(xt);
  Eigen::Map<ColumnMatrix> y_map(yt.data(), 4, 6);
  layer.forward_train(eigen::samples_in_columns(x_ref), eigen::samples_in_columns(y_map));
  EXPECT_TRUE(holds(yt, wanted.y.values));
}

TEST(Eigen, MatrixWithGapsIsEveryonesError) {
  auto layer_case = a_case();
  BatchNorm layer = make_layer(layer_case);
  RowMatrix wide = RowMatrix::Random(6, 9);
  RowMatrix dense = RowMatrix::Random(6, 4), y(6, 4);
  const int culprit = world_size() - 1;
  Eigen::Ref<RowMatrix, 0, Eigen::OuterStride<>> block = wide.leftCols(4);
  const Caught caught = error_of([&] {
    const TensorView x = world_rank() == culprit ? eigen::samples_in_rows(block) : eigen::samples_in_rows(dense);
    layer.forward_train(x, eigen::samples_in_rows(y));
  });
  expect_same_error_everywhere(caught, ErrorCode::shape, {"x is not dense", of_rank(culprit)});
}

TEST(Eigen, TensorsOfBothOrders) {
  for (const Layout layout : {Layout::channels_first, Layout::channels_last}) {
    auto layer_case = a_case({3, 5}, layout);
    BatchNorm layer = make_layer(layer_case);
    const StepResult<float> wanted = run_step(layer, layer_case);
    const bool is_last = layout == Layout::channels_last;
    float* data = layer_case.my_x().values.data();
    const auto view = [&](auto& tensor) {
      return is_last ? eigen::channels_last(tensor) : eigen::channels_first(tensor);
    };

    Eigen::TensorMap<Eigen::Tensor<float, 4, Eigen::RowMajor>> rows(data, 6, is_last ? 3 : 4, is_last ? 5 : 3,
                                                                    is_last ? 4 : 5);
    Eigen::Tensor<float, 4, Eigen::RowMajor> y(rows.dimensions());
    layer.forward_train(view(rows), view(y));
    EXPECT_TRUE(holds(y, wanted.y.values));

    const Eigen::Tensor<float, 4> columns =
        Eigen::TensorMap<Eigen::Tensor<float, 4>>(data, is_last ? 4 : 5, is_last ? 5 : 3, is_last ? 3 : 4, 6);
    Eigen::Tensor<float, 4> y_columns(columns.dimensions());
    layer.forward_train(view(columns), view(y_columns));
    EXPECT_TRUE(holds(y_columns, wanted.y.values));
  }
}

TEST(Eigen, StateAsArrays) {
  auto layer_case = a_case();
  BatchNorm layer = make_layer(layer_case);
  eigen::array_of<float>(layer.gamma()) *= 2.0f;
  EXPECT_EQ(layer.gamma()[3], 2 * static_cast<double>(static_cast<float>(layer_case.gamma[3])));
  EXPECT_EQ(eigen::array_of<float>(std::as_const(layer).running_var()).sum(), 4.0f);
  EXPECT_EQ(error_of([&] { eigen::array_of<double>(layer.gamma()); }).code, ErrorCode::state);
}

}  // namespace
}  // namespace syncbn::testing
