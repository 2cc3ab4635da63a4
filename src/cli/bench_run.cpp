// SPDX-License-Identifier: MIT
// syncbn bench: verifies and times the layer, on all ranks.
#include "bench_run.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "agree.hpp"
#include "bench_batch.hpp"
#include "bench_report.hpp"
#include "bench_turns.hpp"
#include "command.hpp"
#include "element_type.hpp"
#include "memory_limit.hpp"
#include "syncbn/batch_norm.hpp"
#include "syncbn/communicator.hpp"

namespace syncbn::cli::bench {
namespace {

/// Of --seconds, for finding out how memory moves fastest.
constexpr double kShareOfTrials = 0.2;

/// Of each rank in a tiny batch. More than one: a channel that is constant on a rank would be finished in another way
/// there than on all ranks together.
constexpr Index kTinyRows = 4;

/// A layer and the tensors that it works on.
class Subject {
 public:
  Subject(const BatchNormOptions& options, const Communicator& communicator, Batch& batch)
      : layer_(options, communicator), batch_(&batch) {
    for (Index c = 0; c < options.num_features; ++c) {
      layer_.gamma().set(c, gamma_of(c));
      layer_.beta().set(c, beta_of(c));
    }
  }

  /// Backward needs a forward before it. Collective over the layer's ranks.
  void run(Pass pass) {
    if (pass == Pass::forward) {
      layer_.forward_train(batch_->x(), batch_->y(), cache_, batch_->residual());
    } else {
      layer_.backward(cache_, batch_->dy(), batch_->dx(), gradients_, batch_->dresidual());
    }
  }

  Results results() const { return {cache_, gradients_}; }
  double eps() const { return layer_.options().eps; }

 private:
  BatchNorm layer_;
  Batch* batch_;
  BatchNormCache cache_;
  BatchNormGradients gradients_;
};

/// The times of one subject under one pass.
struct Entry {
  Entry(Subject& subject, Pass pass) : contestant([&subject, pass] { subject.run(pass); }) {}
  double median_ms() const { return 1e3 * median(contestant.seconds); }
  Contestant contestant;
};

/// One reduction on one batch: the layer over all ranks and, where there are several, what its message costs.
class Candidate {
 public:
  Candidate(const BatchNormOptions& options, const Communicator& world, Batch& batch, Batch& tiny)
      : reduction_(options.reduction), layer_(options, world, batch) {
    if (world.size() == 1) return;
    parts_.emplace(Parts{{options, Communicator(), batch}, {options, world, tiny}, {options, Communicator(), tiny}});
  }

  Reduction reduction() const { return reduction_; }
  Subject& layer() { return layer_; }

  /// Once both ways, the layer last: its results are in the batch. Collective.
  void run() {
    const std::vector<Subject*> all = subjects();
    for (auto subject = all.rbegin(); subject != all.rend(); ++subject) {
      (*subject)->run(Pass::forward);
      (*subject)->run(Pass::backward);
    }
  }

  /// Starts a measurement: the contestants that it takes.
  std::vector<Contestant*> enter(Pass pass) {
    entries_.clear();
    for (Subject* subject : subjects()) entries_.push_back(std::make_unique<Entry>(*subject, pass));
    std::vector<Contestant*> contestants;
    for (const auto& entry : entries_) contestants.push_back(&entry->contestant);
    return contestants;
  }

  /// The entered ones, after they were timed.
  void write_to(Measurement& measurement) const {
    measurement.reduction = reduction_;
    measurement.median_ms = entries_[kLayer]->median_ms();
    measurement.min_ms = 1e3 * least(entries_[kLayer]->contestant.seconds);
    if (!parts_) return;
    measurement.sync_overhead_ms = difference_ms(kLayer, kAlone);
    measurement.allreduce_ms = std::max(0.0, difference_ms(kTiny, kTinyAlone));
  }

  const std::vector<double>& round_seconds() const { return entries_[kLayer]->contestant.round_seconds; }

 private:
  /// A tiny batch has the messages of a large one and nearly no work: what it takes longer on all ranks together than
  /// on each rank alone is the all-reduce.
  struct Parts {
    Subject alone, tiny, tiny_alone;
  };
  enum Place : std::size_t { kLayer, kAlone, kTiny, kTinyAlone };

  /// Median over the rounds of what `longer` takes more than `shorter`.
  double difference_ms(Place longer, Place shorter) const {
    std::vector<double> differences;
    const std::vector<double>& times = entries_[longer]->contestant.round_seconds;
    for (std::size_t round = 0; round < times.size(); ++round) {
      differences.push_back(times[round] - entries_[shorter]->contestant.round_seconds[round]);
    }
    return 1e3 * median(std::move(differences));
  }

  std::vector<Subject*> subjects() {
    if (!parts_) return {&layer_};
    return {&layer_, &parts_->alone, &parts_->tiny, &parts_->tiny_alone};
  }

  Reduction reduction_;
  Subject layer_;
  std::optional<Parts> parts_;
  std::vector<std::unique_ptr<Entry>> entries_;
};

/// All of one shape and layout.
class Bench {
 public:
  Bench(const Options& options, const Shape& shape, Layout layout, const Communicator& world, MPI_Comm comm)
      : options_(options),
        comm_(comm),
        batch_(shape, layout, options.dtype, options.fused, comm),
        tiny_({kTinyRows * size_of(comm), shape.c}, layout, options.dtype, options.fused, comm) {
    for (const Reduction reduction : options.reductions) {
      BatchNormOptions layer;
      layer.num_features = shape.c;
      layer.activation = options.fused.activation;
      layer.parameter_type = parameter_type_for(options.dtype);
      layer.reduction = reduction;
      layer.threads = options.threads;
      layer.name = std::string("bench ") + name_of(reduction);
      candidates_.push_back(std::make_unique<Candidate>(layer, world, batch_, tiny_));
    }
  }

  /// Throws AgreedFailure (check failed). Collective.
  void verify() {
    Reference reference(batch_, candidates_.front()->layer().eps(), comm_);
    for (const auto& candidate : candidates_) {
      candidate->run();
      reference.sum_gradients(batch_, comm_);
      if (options_.spoil != 0.0) spoil();
      together(comm_, [&] {
        const auto error = reference.find_error(batch_, candidate->layer().results());
        if (error) throw LocalFailure(kCheckFailed, description(*candidate) + ": " + *error);
      });
    }
  }

  /// One for each reduction. Collective.
  std::vector<Measurement> measure(Pass pass) {
    // The limit's forward traffic has left no y that a ReLU's backward pass could be timed with.
    if (pass == Pass::backward) candidates_.front()->run();
    const Traffic traffic = traffic_of(pass);
    const Moves moves = fastest_moves(traffic);
    Contestant limit([&] { move(traffic, moves); });

    std::vector<Contestant*> contestants;
    for (const auto& candidate : candidates_) {
      for (Contestant* contestant : candidate->enter(pass)) contestants.push_back(contestant);
    }
    contestants.push_back(&limit);
    take_turns(contestants, options_.seconds, comm_);

    Measurement measurement;
    measurement.shape = batch_.global();
    measurement.layout = batch_.shape().layout;
    measurement.pass = pass;
    measurement.limit_ms = 1e3 * median(limit.seconds);
    const double tensor_bytes = static_cast<double>(batch_.global().elements() * size_of(options_.dtype));
    measurement.bytes = tensor_bytes * tensors_of(traffic);
    measurement.megabytes = tensor_bytes * 1e-6;
    std::vector<Measurement> measurements;
    for (const auto& candidate : candidates_) {
      candidate->write_to(measurement);
      measurement.to_fast = ratio_to_fast(*candidate);
      measurements.push_back(measurement);
    }
    return measurements;
  }

 private:
  std::string description(const Candidate& candidate) const {
    return text_of(batch_.global()) + " " + field_name_of(batch_.shape().layout) + " " + name_of(options_.dtype) + " " +
           name_of(candidate.reduction());
  }

  /// What the layer reads and writes in a pass, once each. The gradient behind a ReLU has no place of its own where nobody
  /// wants it: the layer then leaves it in dx.
  Traffic traffic_of(Pass pass) {
    Traffic traffic;
    traffic.bytes = static_cast<std::size_t>(batch_.bytes());
    traffic.threads = options_.threads;
    const void* x = batch_.x().data;
    const void* dy = batch_.dy().data;
    if (pass == Pass::forward) {
      traffic.sums = {{x}, nullptr};
      traffic.elements = {{x, batch_.residual().data}, batch_.y().data};
    } else if (!options_.fused.has_relu()) {
      traffic.sums = {{x, dy}, nullptr};
      traffic.elements = {{x, dy}, batch_.dx().data};
    } else {
      void* masked = options_.fused.residual ? batch_.dresidual().data : batch_.dx().data;
      traffic.sums = {{x, dy, batch_.y().data}, masked};
      traffic.elements = {{x, masked}, batch_.dx().data};
    }
    return traffic;
  }

  void spoil() {
    const TensorView dx = batch_.dx();
    with_element_type(dx.type, [&](auto element) {
      using T = decltype(element);
      T* values = static_cast<T*>(dx.data);
      for (Index i = 0; i < dx.shape.element_count(); ++i) {
        values[i] = static_cast<T>(static_cast<double>(values[i]) * (1.0 + options_.spoil));
      }
    });
  }

  /// The same on all ranks.
  Moves fastest_moves(const Traffic& traffic) const {
    const std::vector<Moves> ways = all_moves();
    std::vector<std::unique_ptr<Contestant>> trials;
    std::vector<Contestant*> contestants;
    for (const Moves& moves : ways) {
      trials.push_back(std::make_unique<Contestant>([&traffic, moves] { move(traffic, moves); }));
      contestants.push_back(trials.back().get());
    }
    take_turns(contestants, kShareOfTrials * options_.seconds, comm_);
    std::size_t best = 0;
    for (std::size_t i = 1; i < ways.size(); ++i) {
      if (median(trials[i]->seconds) < median(trials[best]->seconds)) best = i;
    }
    return ways[best];
  }

  std::optional<double> ratio_to_fast(const Candidate& candidate) const {
    if (candidate.reduction() == Reduction::fast) return std::nullopt;
    const auto fast = std::find_if(candidates_.begin(), candidates_.end(),
                                   [](const auto& other) { return other->reduction() == Reduction::fast; });
    if (fast == candidates_.end()) return std::nullopt;
    std::vector<double> ratios;
    for (std::size_t round = 0; round < candidate.round_seconds().size(); ++round) {
      ratios.push_back(candidate.round_seconds()[round] / (*fast)->round_seconds()[round]);
    }
    return median(ratios);
  }

  const Options& options_;
  MPI_Comm comm_;
  Batch batch_;
  Batch tiny_;
  std::vector<std::unique_ptr<Candidate>> candidates_;
};

}  // namespace

int run(const Options& options, MPI_Comm comm) {
  const Communicator world = size_of(comm) > 1 ? Communicator(comm) : Communicator();
  const bool speaks = rank_of(comm) == 0;
  std::optional<Report> report;
  for (const Shape& shape : options.shapes) {
    for (const Layout layout : options.layouts) {
      Bench bench(options, shape, layout, world, comm);
      bench.verify();
      if (speaks && !report) report.emplace(options, size_of(comm));
      for (const Pass pass : options.passes) {
        for (const Measurement& measurement : bench.measure(pass)) {
          if (speaks) report->add(measurement);
        }
      }
    }
  }
  if (speaks) report->finish();
  return kOk;
}

}  // namespace syncbn::cli::bench
