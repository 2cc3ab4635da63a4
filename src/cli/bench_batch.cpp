// SPDX-License-Identifier: MIT
#include "bench_batch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <unistd.h>

#include "agree.hpp"
#include "element_type.hpp"
#include "shards.hpp"
#include "train/random.hpp"

namespace syncbn::cli::bench {
namespace {

using train::CounterRandom;

constexpr std::uint64_t kSeed = 1;
enum Stream : std::uint64_t { kX, kDy, kResidual };

template <class T>
void fill_uniform(train::Buffer<std::byte>& buffer, Stream stream, Index first, Index count) {
  const CounterRandom random(kSeed, stream);
  T* values = reinterpret_cast<T*>(buffer.data());
  for (Index i = 0; i < count; ++i) {
    const auto index = static_cast<std::uint64_t>(first + i);
    // Rounding may give 1: no harm.
    values[i] = static_cast<T>(random.uniform(index, -1.0, 1.0));
  }
}

void require_memory(double bytes, const Shape& global, MPI_Comm comm) {
  MPI_Comm on_host = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &on_host), "MPI_Comm_split_type");
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &bytes, 1, MPI_DOUBLE, MPI_SUM, on_host), "MPI_Allreduce");
  check_mpi(MPI_Comm_free(&on_host), "MPI_Comm_free");
  const double has = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  together(comm, [&] {
    if (bytes <= 0.9 * has) return;
    char text[160];
    std::snprintf(text, sizeof text, "%s needs %.1f GB of memory, this host has %.1f GB", text_of(global).c_str(),
                  bytes * 1e-9, has * 1e-9);
    throw LocalFailure(kEnvironment, text);
  });
}

/// Calls element(i, c) for every element of a tensor, in memory order.
template <class Element>
void for_each_element(const TensorShape& shape, const Element& element) {
  const bool is_last = shape.layout == Layout::channels_last;
  const Index outer = is_last ? shape.samples * shape.positions : shape.samples;
  const Index inner = is_last ? 1 : shape.positions;
  Index i = 0;
  for (Index o = 0; o < outer; ++o) {
    for (Index c = 0; c < shape.channels; ++c) {
      for (Index s = 0; s < inner; ++s, ++i) element(i, static_cast<std::size_t>(c));
    }
  }
}

template <class T>
const T* values_of(const ConstTensorView& view) {
  return static_cast<const T*>(view.data);
}

/// dy as it counts: behind a ReLU where y > 0.
template <class T>
class OutputGradient {
 public:
  explicit OutputGradient(Batch& batch)
      : dy_(values_of<T>(batch.dy())), y_(batch.fused().has_relu() ? values_of<T>(batch.y()) : nullptr) {}

  double operator[](Index i) const {
    return y_ == nullptr || static_cast<double>(y_[i]) > 0.0 ? static_cast<double>(dy_[i]) : 0.0;
  }

 private:
  const T* dy_;
  const T* y_;
};

/// Adds up all ranks' numbers, in place.
void add_up(std::vector<double>& numbers, MPI_Comm comm) {
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, numbers.data(), static_cast<int>(numbers.size()), MPI_DOUBLE, MPI_SUM, comm),
            "MPI_Allreduce");
}

/// sums[c] += term(i, c) over all elements of all ranks.
template <class Term>
std::vector<double> sum_by_channel(const Batch& batch, MPI_Comm comm, const Term& term) {
  std::vector<double> sums(static_cast<std::size_t>(batch.global().c), 0.0);
  for_each_element(batch.shape(), [&](Index i, std::size_t c) { sums[c] += term(i, c); });
  add_up(sums, comm);
  return sums;
}

/// |got - want| <= bound, which NaN is not.
std::optional<std::string> error_at(const char* name, Index i, double got, double want, double bound) {
  if (std::abs(got - want) <= bound) return std::nullopt;
  char text[160];
  std::snprintf(text, sizeof text, "%s[%lld] is %.17g, wanted %.17g within %.1e", name, static_cast<long long>(i), got,
                want, bound);
  return text;
}

/// The last rounding of a result: to nearest, and half the smallest number where that is more. To 16 bits by way of f32.
double rounding(DataType type, double value) {
  constexpr double kUnitOfFloat = 0x1p-24;
  switch (type) {
    case DataType::f64:
      return 0x1p-53 * std::abs(value);
    case DataType::bf16:
      return (0x1p-8 + 2 * kUnitOfFloat) * std::abs(value);
    case DataType::f16:
      return (0x1p-11 + 2 * kUnitOfFloat) * std::abs(value) + 0x1p-25;
    case DataType::f32:
      break;
  }
  return kUnitOfFloat * std::abs(value);
}

/// Of the arithmetic between the sums and a result that is not f32 or f64: float, at most 4 roundings of each addend.
double roundings_of_pass(DataType type) {
  return type == DataType::bf16 || type == DataType::f16 ? 4.0 * 0x1p-24 : 0.0;
}

}  // namespace

Batch::Batch(const Shape& global, Layout layout, DataType type, const Fused& fused, MPI_Comm comm)
    : global_(global), type_(type), fused_(fused) {
  const RowRange rows = rows_of_rank(even_shards(global.n, size_of(comm)), rank_of(comm));
  shape_ = {rows.count, global.c, global.positions(), layout};
  std::vector<train::Buffer<std::byte>*> buffers{&x_, &dy_, &y_, &dx_};
  if (fused.residual) buffers.push_back(&residual_);
  if (fused.has_residual_gradient()) buffers.push_back(&dresidual_);
  require_memory(static_cast<double>(buffers.size()) * static_cast<double>(bytes()), global, comm);
  together(comm, [&] {
    for (train::Buffer<std::byte>* buffer : buffers) buffer->resize(static_cast<std::size_t>(bytes()));
    const Index first = rows.first * global.c * global.positions();
    with_element_type(type, [&](auto element) {
      fill_uniform<decltype(element)>(x_, kX, first, shape_.element_count());
      fill_uniform<decltype(element)>(dy_, kDy, first, shape_.element_count());
      if (fused.residual) fill_uniform<decltype(element)>(residual_, kResidual, first, shape_.element_count());
    });
  });
}

double gamma_of(Index channel) noexcept { return 0.5 + static_cast<double>(channel % 7) / 8.0; }
double beta_of(Index channel) noexcept { return static_cast<double>(channel % 5 - 2) / 4.0; }

Reference::Reference(const Batch& batch, double eps, MPI_Comm comm)
    : count_(batch.global().n * batch.global().positions()) {
  with_element_type(batch.type(), [&](auto element) {
    const auto* x = values_of<decltype(element)>(batch.x());
    const auto count = static_cast<double>(count_);
    mean_ = sum_by_channel(batch, comm, [=](Index i, std::size_t) { return static_cast<double>(x[i]); });
    for (double& mean : mean_) mean /= count;
    var_ = sum_by_channel(batch, comm, [&](Index i, std::size_t c) {
      const double difference = static_cast<double>(x[i]) - mean_[c];
      return difference * difference;
    });
    for (double& var : var_) var /= count;
    for (const double var : var_) invstd_.push_back(1.0 / std::sqrt(var + eps));
  });
  // A sum of M terms has M - 1 roundings; a result some 16 more behind its sums; both sides have them, and a variance
  // has those of its mean, too.
  roundings_ = 4.0 * (static_cast<double>(count_) + 16.0) * 0x1p-53;
}

void Reference::sum_gradients(Batch& batch, MPI_Comm comm) {
  with_element_type(batch.type(), [&](auto element) {
    using T = decltype(element);
    const T* x = values_of<T>(batch.x());
    const OutputGradient<T> dy(batch);
    sum_dy_ = sum_by_channel(batch, comm, [=](Index i, std::size_t) { return dy[i]; });
    sum_dy_xhat_ = sum_by_channel(batch, comm, [&](Index i, std::size_t c) {
      return dy[i] * (static_cast<double>(x[i]) - mean_[c]) * invstd_[c];
    });
  });
}

/// How far a result may be off, per channel. |x - mean| <= 2, |dy| <= 1 and |z| <= 1 here, so |xhat| <= 2 * invstd.
struct Reference::Bounds {
  Bounds(const Reference& reference, DataType type, std::size_t c)
      : invstd(reference.invstd_[c]),
        xhat(1.0 + 2.0 * invstd),
        gamma(gamma_of(static_cast<Index>(c))),
        y(reference.roundings_ * (gamma * xhat * xhat + std::abs(beta_of(static_cast<Index>(c))) + 1.0) +
          roundings_of_pass(type) * (gamma * xhat + 1.0)),
        dx((reference.roundings_ * xhat + roundings_of_pass(type)) * gamma * invstd * (2.0 + 2.0 * xhat * xhat)),
        sum(reference.roundings_ * static_cast<double>(reference.count_) * xhat * xhat) {}
  double invstd, xhat, gamma;
  double y, dx, sum;  // sum: of dgamma and dbeta
};

template <class T>
std::optional<std::string> Reference::find_element_error(Batch& batch) const {
  const T* x = values_of<T>(batch.x());
  const OutputGradient<T> dy(batch);
  const T* residual = values_of<T>(batch.residual());
  const T* dresidual = values_of<T>(batch.dresidual());
  const T* y = values_of<T>(batch.y());
  const T* dx = values_of<T>(batch.dx());
  const auto count = static_cast<double>(count_);
  std::vector<Bounds> bounds;
  for (std::size_t c = 0; c < mean_.size(); ++c) bounds.emplace_back(*this, batch.type(), c);

  std::optional<std::string> error;
  for_each_element(batch.shape(), [&](Index i, std::size_t c) {
    const double xhat = (static_cast<double>(x[i]) - mean_[c]) * invstd_[c];
    double want_y = bounds[c].gamma * xhat + beta_of(static_cast<Index>(c));
    if (residual != nullptr) want_y += static_cast<double>(residual[i]);
    if (batch.fused().has_relu()) want_y = std::max(want_y, 0.0);
    const double want_dx = bounds[c].gamma * invstd_[c] * (dy[i] - sum_dy_[c] / count - xhat * sum_dy_xhat_[c] / count);
    const double bound_y = bounds[c].y + rounding(batch.type(), want_y);
    const double bound_dx = bounds[c].dx + rounding(batch.type(), want_dx);
    const double got_y = static_cast<double>(y[i]);
    const double got_dx = static_cast<double>(dx[i]);
    const double got_dresidual = dresidual == nullptr ? dy[i] : static_cast<double>(dresidual[i]);
    const bool is_good =
        std::abs(got_y - want_y) <= bound_y && std::abs(got_dx - want_dx) <= bound_dx && got_dresidual == dy[i];
    if (error || is_good) return;
    error = error_at("y", i, got_y, want_y, bound_y);
    if (!error) error = error_at("dx", i, got_dx, want_dx, bound_dx);
    if (!error) error = error_at("dresidual", i, got_dresidual, dy[i], 0.0);
  });
  return error;
}

std::optional<std::string> Reference::find_error(Batch& batch, const Results& results) const {
  for (std::size_t c = 0; c < mean_.size(); ++c) {
    const auto channel = static_cast<Index>(c);
    const Bounds bounds(*this, batch.type(), c);
    const DataType type = parameter_type_for(batch.type());
    const double dgamma = sum_dy_xhat_[c];
    const double dbeta = sum_dy_[c];
    const std::optional<std::string> errors[] = {
        error_at("mean", channel, results.cache.mean[c], mean_[c], roundings_),
        error_at("var", channel, results.cache.var[c], var_[c], roundings_ * 4.0),
        error_at("dgamma", channel, results.gradients.dgamma[channel], dgamma, bounds.sum + rounding(type, dgamma)),
        error_at("dbeta", channel, results.gradients.dbeta[channel], dbeta, bounds.sum + rounding(type, dbeta))};
    for (const auto& error : errors) {
      if (error) return error;
    }
  }
  return with_element_type(batch.type(), [&](auto element) { return find_element_error<decltype(element)>(batch); });
}

}  // namespace syncbn::cli::bench
