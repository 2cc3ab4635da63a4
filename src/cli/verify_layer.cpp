// SPDX-License-Identifier: MIT
#include "verify_layer.hpp"

#include <numeric>
#include <utility>
#include <vector>

#include "agree.hpp"
#include "syncbn/syncbn.hpp"
#include "train/watched.hpp"

namespace syncbn::cli {
namespace {

RowRange rows_of(const VerifyCase& batch, int rank) {
  const RowRange samples = rows_of_rank(batch.shards, rank);
  return {samples.first * batch.positions, samples.count * batch.positions};
}

/// The layer with this rank's part of a batch, in the batch's layout.
template <class T>
class Shard {
 public:
  Shard(const VerifyCase& batch, MPI_Comm comm)
      : layer_(options_of(batch), Communicator(comm)),
        rows_(rows_of(batch, rank_of(comm))),
        columns_(batch.x.columns),
        positions_(batch.positions),
        layout_(batch.layout),
        x_(packed(batch.x)),
        dy_(packed(batch.dy)),
        y_(x_.size()),
        dx_(x_.size()) {
    for (Index j = 0; j < columns_; ++j) {
      layer_.gamma().set(j, batch.parameters.gamma[static_cast<std::size_t>(j)]);
      layer_.beta().set(j, batch.parameters.beta[static_cast<std::size_t>(j)]);
    }
  }

  const RowRange& rows() const { return rows_; }
  BatchNorm& layer() { return layer_; }
  T* x_at(Index row, Index column) {
    const bool is_mine = row >= rows_.first && row < rows_.first + rows_.count;
    return is_mine ? &x_[offset(row, column)] : nullptr;
  }

  LayerResult step(Index rows) {
    const BatchNormCache cache = layer_.forward_train(view(x_), view(y_));
    const BatchNormGradients gradients = layer_.backward(cache, view(dy_), view(dx_));
    LayerResult result{unpacked(y_, rows), {unpacked(dx_, rows), {}, {}}, rows_};
    for (Index j = 0; j < columns_; ++j) {
      result.gradients.dgamma.push_back(gradients.dgamma[j]);
      result.gradients.dbeta.push_back(gradients.dbeta[j]);
    }
    return result;
  }

  /// sum(dy*y) over this rank's samples.
  double loss() {
    layer_.forward_train(view(x_), view(y_));
    return std::inner_product(y_.begin(), y_.end(), dy_.begin(), 0.0);
  }

 private:
  static BatchNormOptions options_of(const VerifyCase& batch) {
    BatchNormOptions options;
    options.num_features = batch.x.columns;
    options.eps = batch.parameters.eps;
    options.parameter_type = DataTypeOf<T>::value;
    options.reduction = batch.reduction;
    options.name = "verify";
    return options;
  }

  std::size_t offset(Index row, Index column) const {
    const Index local = row - rows_.first;
    const Index sample = local / positions_;
    const Index position = local % positions_;
    return static_cast<std::size_t>(layout_ == Layout::channels_last
                                        ? local * columns_ + column
                                        : (sample * columns_ + column) * positions_ + position);
  }

  template <class Visit>
  void for_each_element(Visit visit) const {
    for (Index i = rows_.first; i < rows_.first + rows_.count; ++i) {
      for (Index j = 0; j < columns_; ++j) visit(i, j, offset(i, j));
    }
  }

  std::vector<T> packed(const Matrix& matrix) const {
    std::vector<T> tensor(static_cast<std::size_t>(rows_.count * columns_));
    for_each_element([&](Index i, Index j, std::size_t at) { tensor[at] = static_cast<T>(matrix.at(i, j)); });
    return tensor;
  }

  Matrix unpacked(const std::vector<T>& tensor, Index rows) const {
    Matrix matrix(rows, columns_);
    for_each_element([&](Index i, Index j, std::size_t at) { matrix.at(i, j) = static_cast<double>(tensor[at]); });
    return matrix;
  }

  TensorView view(std::vector<T>& tensor) const {
    const Index samples = rows_.count / positions_;
    return layout_ == Layout::channels_last ? channels_last(tensor.data(), {samples, positions_, columns_})
                                            : channels_first(tensor.data(), {samples, columns_, positions_});
  }

  BatchNorm layer_;
  RowRange rows_;
  Index columns_, positions_;
  Layout layout_;
  std::vector<T> x_, dy_, y_, dx_;
};

double sum_over_ranks(double mine, MPI_Comm comm) {
  double total = 0.0;
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallreduce(&mine, &total, 1, MPI_DOUBLE, MPI_SUM, comm, &request), "MPI_Iallreduce");
  train::wait(comm, request, "sum of a loss");
  return total;
}

/// `move(h)` puts the number that is varied at h from where it was.
template <class Move>
double difference(Shard<double>& shard, double step, MPI_Comm comm, Move move) {
  move(step);
  const double above = sum_over_ranks(shard.loss(), comm);
  move(-step);
  const double below = sum_over_ranks(shard.loss(), comm);
  move(0.0);
  return (above - below) / (2.0 * step);
}

double difference_in_parameter(Shard<double>& shard, ChannelVector& parameter, Index j, MPI_Comm comm) {
  const double middle = parameter[j];
  return difference(shard, kLinearStep, comm, [&](double h) { parameter.set(j, middle + h); });
}

}  // namespace

template <class T>
LayerResult run_layer(const VerifyCase& batch, MPI_Comm comm) {
  return Shard<T>(batch, comm).step(batch.x.rows);
}
template LayerResult run_layer<float>(const VerifyCase&, MPI_Comm);
template LayerResult run_layer<double>(const VerifyCase&, MPI_Comm);

Gradients layer_differences(const VerifyCase& batch, const ForwardNodes& nodes, MPI_Comm comm) {
  Shard<double> shard(batch, comm);
  Gradients slopes{Matrix(batch.x.rows, batch.x.columns), {}, {}};
  for (Index j = 0; j < batch.x.columns; ++j) {
    const double step = difference_step(nodes.var[static_cast<std::size_t>(j)], batch.parameters.eps);
    for (Index i = 0; i < batch.x.rows; ++i) {
      double* x = shard.x_at(i, j);
      const double middle = batch.x.at(i, j);
      slopes.dx.at(i, j) = difference(shard, step, comm, [&](double h) {
        if (x != nullptr) *x = middle + h;
      });
    }
    slopes.dgamma.push_back(difference_in_parameter(shard, shard.layer().gamma(), j, comm));
    slopes.dbeta.push_back(difference_in_parameter(shard, shard.layer().beta(), j, comm));
  }
  return slopes;
}

}  // namespace syncbn::cli
