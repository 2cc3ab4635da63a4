// SPDX-License-Identifier: MIT
// The layer behind its public face (public_api.cpp). Its passes are in batch_norm.cpp.
#pragma once

#include <memory>
#include <optional>

#include "comm/group.hpp"
#include "layer/channel_sums.hpp"
#include "layer/contract.hpp"
#include "layer/cost_meter.hpp"
#include "layer/drift_meter.hpp"
#include "layer/element_pass.hpp"
#include "layer/state.hpp"
#include "syncbn/batch_norm.hpp"
#include "syncbn/communicator.hpp"

namespace syncbn {

class BatchNorm::Impl final : public comm::Absent {
 public:
  Impl(const BatchNormOptions& layer_options, const Communicator& group);

  /// The two halves of a training pass. What begin_* is given stays where it is until finish_*.
  void begin_forward(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual,
                     BatchNormCache& cache);
  void finish_forward();
  void begin_backward(const BatchNormCache& cache, const ConstTensorView& dy, const TensorView& dx,
                      const TensorView& dresidual, BatchNormGradients* gradients);
  void finish_backward();
  bool progress();

  void forward_with_running_stats(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual,
                                  const char* pass, BatchNormCache& cache);
  void forward_eval(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual);
  void forward_again(BatchNormCache& cache, const ConstTensorView& x, const TensorView& y,
                     const ConstTensorView& residual);

  BatchNormOptions options;
  Communicator communicator;
  layer::State state;
  layer::CostMeter costs;

 private:
  /// What begin_* leaves for finish_*.
  struct Forward {
    ConstTensorView x;
    TensorView y;
    ConstTensorView residual;
    BatchNormCache* cache = nullptr;
  };
  struct Backward {
    const BatchNormCache* cache = nullptr;
    layer::OutputGradient dy;
    TensorView dx;
    TensorView dresidual;
    BatchNormGradients* gradients = nullptr;  // nobody's, if the caller has none or the layer no parameters
    BatchNormGradients* cleared = nullptr;    // the caller's, of a layer without parameters
  };
  enum class InFlight { nothing, forward, backward, frozen_backward };

  void contribute_nothing(std::byte* body) override { sums_->add_nothing(body); }
  void finish(std::int32_t pass, std::int64_t count) override;
  comm::Merge merge() const override { return sums_->merge(); }

  void allocate(comm::Message& message);
  comm::Message& message() { return rounds_->message(); }
  const comm::Message& message() const { return rounds_->message(); }
  void check_idle(const char* pass) const;
  void take(InFlight wanted, const char* pass);
  std::optional<layer::Problem> check_forward(const char* pass, const ConstTensorView& x, const TensorView& y,
                                              const ConstTensorView& residual) const;
  void forward_with_own_statistics(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual,
                                   BatchNormCache& cache);
  std::optional<layer::Problem> sum_samples(const ConstTensorView& x, const char* pass);
  std::optional<layer::Problem> sum_gradients(const BatchNormCache& cache, const layer::OutputGradient& dy,
                                              const char* pass);
  void check_sums(const char* pass) const;
  void update_running_stats(const BatchNormCache& cache);
  void finish_statistics(Index count, BatchNormCache& cache);
  void fill_cache(BatchNormCache::Mode mode, const ConstTensorView& x, const TensorView& y, Index count,
                  BatchNormCache& cache) const;
  void backward_frozen(const Backward& step);
  void finish_gradients(layer::GradientSums& sums);
  void set_gradients(const BatchNormCache& cache, const layer::GradientSums& sums, ParameterGradients scope,
                     BatchNormGradients& gradients) const;

  std::unique_ptr<layer::ChannelSums> sums_;
  std::optional<layer::GradientSums> own_, global_;  // over this rank's samples, over the batch
  std::optional<layer::ElementPass> elements_;
  std::optional<layer::DriftMeter> drift_;  // if the options have a probe
  BatchNormCache spare_cache_;              // for passes whose caller wants none; kept for its storage
  InFlight in_flight_ = InFlight::nothing;
  Forward forward_;
  Backward backward_;
  std::optional<comm::Rounds> rounds_;  // last: its answers in join() use the rest
};

}  // namespace syncbn
