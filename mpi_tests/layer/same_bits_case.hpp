// SPDX-License-Identifier: MIT
// Random training steps whose every result byte can be compared between ways of running them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "support/tensor.hpp"
#include "syncbn/syncbn.hpp"

namespace syncbn::testing::bits {

/// A few training steps of one layer on global batches, all drawn from `seed`. The same numbers from every compiler and
/// on every machine: integers, IEEE operations and powers of two, no function of the mathematical library.
struct Plan {
  std::uint64_t seed = 1;
  DataType type = DataType::f32;
  BatchNormOptions options;
  std::vector<Index> spatial;
  Layout layout = Layout::channels_first;
  Index samples = 0;
  int steps = 1;
  int scale_exponent = 0;  ///< sigma of ordinary channels is about 2^this ...
  double ratio = 0.0;      ///< ... and their mean this many times as large.
  bool is_dx_over_dy = false;
  bool has_non_finite = false;

  std::string description() const;
};

/// Calls run(T()) with T the plan's element type.
template <class Run>
auto with_element_type(const Plan& plan, const Run& run) {
  switch (plan.type) {
    case DataType::f64:
      return run(double());
    case DataType::bf16:
      return run(bfloat16());
    case DataType::f16:
      return run(float16());
    case DataType::f32:
      break;
  }
  return run(float());
}

/// How large a batch is: up to about 6,000 elements, or enough that all threads get work.
enum class Size { small, for_threads };
Plan random_plan(std::uint64_t seed, Size size);

/// The batches of one step, all samples in one tensor. Among the channels: gaussian-like ones, heavy tails, pairs that
/// cancel, constants, zeros of both signs, subnormal numbers, values spread over hundreds of powers of two; NaN and
/// infinities if the plan says so.
template <class T>
struct GlobalBatch {
  Tensor<T> x, dy;
};
template <class T>
GlobalBatch<T> batch_of(const Plan& plan, int step);

/// Which samples a rank has, and in which order.
using Samples = std::vector<Index>;
/// Every sample on one of `ranks` ranks: even, uneven, some ranks empty or all on one, in order or shuffled, as `seed`
/// has it.
std::vector<Samples> random_assignment(std::uint64_t seed, Index samples, int ranks);

/// What one step gave on one rank. `sample[i]` are the bytes of y and dx of the i-th of this rank's samples; `channel`
/// are mean, what it lost, var, invstd, dgamma, dbeta, running_mean, running_var, gamma, beta and the batch count
/// (equal on all ranks, but for dgamma and dbeta if they are local: then they are left out).
struct StepBytes {
  std::vector<std::vector<unsigned char>> sample;
  std::vector<double> channel;
};

/// One rank's layer, in training.
template <class T>
class Trainee {
 public:
  Trainee(const Plan& plan, const Communicator& group, int threads, Index misalignment = 0,
          Reduction reduction = Reduction::reproducible);
  /// Forward, backward, and an update of gamma and beta. Collective.
  StepBytes step(const GlobalBatch<T>& batch, const Samples& samples);

 private:
  Plan plan_;
  BatchNorm layer_;
  Index misalignment_;  // elements that tensors stand behind the start of their memory
};

/// FNV-1a, 64 bits.
class Hash {
 public:
  void add(const void* data, std::size_t bytes);
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace syncbn::testing::bits
