// SPDX-License-Identifier: MIT
// What syncbn bench feeds the layer with, and what must come out.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <mpi.h>

#include "bench.hpp"
#include "syncbn/batch_norm.hpp"
#include "train/buffer.hpp"

namespace syncbn::cli::bench {

/// This rank's part of a global batch, with room for the results. x, dy and the residual are uniform in [-1, 1): the same
/// batch for every number of ranks.
class Batch {
 public:
  /// Throws LocalFailure if the ranks of this host would need more memory than it has. Collective.
  Batch(const Shape& global, Layout layout, DataType type, const Fused& fused, MPI_Comm comm);

  const Shape& global() const noexcept { return global_; }
  const TensorShape& shape() const noexcept { return shape_; }
  DataType type() const noexcept { return type_; }
  const Fused& fused() const noexcept { return fused_; }
  Index bytes() const noexcept { return shape_.element_count() * size_of(type_); }  ///< of one tensor, on this rank

  ConstTensorView x() const noexcept { return {x_.data(), type_, shape_}; }
  ConstTensorView dy() const noexcept { return {dy_.data(), type_, shape_}; }
  TensorView y() noexcept { return {y_.data(), type_, shape_}; }
  TensorView dx() noexcept { return {dx_.data(), type_, shape_}; }

  /// None without a residual.
  ConstTensorView residual() const noexcept {
    return fused_.residual ? ConstTensorView{residual_.data(), type_, shape_} : ConstTensorView();
  }
  /// None where it would be dy: without a residual, and without a ReLU.
  TensorView dresidual() noexcept {
    return fused_.has_residual_gradient() ? TensorView{dresidual_.data(), type_, shape_} : TensorView();
  }

 private:
  Shape global_;
  DataType type_;
  Fused fused_;
  TensorShape shape_;
  train::Buffer<std::byte> x_, dy_, y_, dx_, residual_, dresidual_;
};

/// Gamma and beta of a bench: not 1 and 0, which would hide their loss, and exact in f32.
double gamma_of(Index channel) noexcept;
double beta_of(Index channel) noexcept;

/// What a layer has made of a batch.
struct Results {
  const BatchNormCache& cache;
  const BatchNormGradients& gradients;
};

/// Batch normalization in double by plain sums over the ranks' elements, one after the other, as the formulas say it.
class Reference {
 public:
  /// Collective: two all-reduces.
  Reference(const Batch& batch, double eps, MPI_Comm comm);

  /// Prepares find_error() of the results that are in `batch`. Behind a ReLU its y says which dy count: which side of 0 a
  /// value is on that is 0 but for roundings is not for the reference to say. Collective: two all-reduces.
  void sum_gradients(Batch& batch, MPI_Comm comm);

  /// Where the results, or y, dx or dresidual of `batch` on this rank, are farther from the reference than the roundings
  /// of both sides allow: "y[17] is 0.5, wanted 0.25 within 1e-7". Local.
  std::optional<std::string> find_error(Batch& batch, const Results& results) const;

 private:
  struct Bounds;
  template <class T>
  std::optional<std::string> find_element_error(Batch& batch) const;

  Index count_;  // M
  double roundings_;
  std::vector<double> mean_, var_, invstd_, sum_dy_, sum_dy_xhat_;
};

}  // namespace syncbn::cli::bench
