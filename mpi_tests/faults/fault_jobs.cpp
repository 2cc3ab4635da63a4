// SPDX-License-Identifier: MIT
#include "faults/fault_jobs.hpp"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>

#include <mpi.h>
#include <unistd.h>

#include "faults/shim.hpp"

namespace syncbn::testing {
namespace {

constexpr int kLayers = 3;
constexpr int kSteps = 3;
constexpr int kPasses = 2 * kLayers;  // of a step

/// Where the script has these passes in the second step, the one with the fault.
constexpr int forward_of(int layer) { return kPasses + layer; }
constexpr int backward_of(int layer) { return 2 * kPasses - 1 - layer; }

Action forward(int layer) {
  return [layer](Training& training) { training.forward(layer); };
}

Action backward(int layer) {
  return [layer](Training& training) { training.backward(layer); };
}

std::vector<Action> steps(int count) {
  std::vector<Action> script;
  for (int step = 0; step < count; ++step) {
    for (int i = 0; i < kLayers; ++i) script.push_back(forward(i));
    for (int i = kLayers; i-- > 0;) script.push_back(backward(i));
  }
  return script;
}

void sleep_for(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

void stop() { std::raise(SIGSTOP); }

/// A forward pass of the layer with its arguments spoiled, for this pass.
Action spoilt_forward(int layer, std::function<void(TrainedLayer&)> spoil) {
  return [layer, spoil = std::move(spoil)](Training& training) {
    TrainedLayer& one = training.at(layer);
    struct Restored {
      explicit Restored(TrainedLayer& trained) : one(trained), x(trained.x), y(trained.y), data(trained.x_data) {}
      ~Restored() {
        one.x = x;
        one.y = y;
        one.x_data = data;
      }
      TrainedLayer& one;
      ConstTensorView x;
      TensorView y;
      std::vector<float> data;
    } restored(one);
    spoil(one);
    one.x.data = one.x.data == nullptr ? nullptr : one.x_data.data();
    training.forward(layer);
  };
}

void null_x(TrainedLayer& one) { one.x.data = nullptr; }

Action& at(FaultJob& job, int place) { return job.script[static_cast<std::size_t>(place)]; }

/// Before what stands at `place`.
void insert(FaultJob& job, int place, Action action) {
  job.script.insert(job.script.begin() + place, std::move(action));
}

void erase(FaultJob& job, int place) { job.script.erase(job.script.begin() + place); }

/// An all-reduce of the program's own, waited for by the library.
void add_gradients(Training& training, const std::string& what) {
  training.note(0);
  static double sum;  // a lost operation may write to it for ever
  static MPI_Request request;
  sum = 1.0;
  PMPI_Iallreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD, &request);
  training.at(0).layer.communicator().wait(request, what);
}

/// No rank is done before all are: in MPI_Finalize nobody could be told any more.
void end_together(Training& training) {
  misbehave({}, nullptr);
  training.note(0);
  static MPI_Request request;
  PMPI_Ibarrier(MPI_COMM_WORLD, &request);
  training.at(0).layer.communicator().wait(request, "[end]");
}

void add_reproducibly(Training& training) {
  training.note(1);
  ReproducibleSum sum;
  sum.add(0, 1.0);
  sum.all_reduce(training.at(1).layer.communicator());
}

void join(Training& training) {
  training.note_many();
  Communicator communicator = training.at(0).layer.communicator();
  communicator.join();
}

/// Layers whose options differ in one point on the guilty rank.
template <class Change>
void change_options(FaultJob& job, const Change& change) {
  if (job.is_guilty()) change(job.layers[1]);
}

/// The guilty rank's MPI fails at the forward pass of bn2.
void fail_mpi(FaultJob& job, Where where, Exchange exchange) {
  job.communicator_options.exchange = exchange;
  if (!job.is_guilty()) return;
  insert(job, forward_of(1), [where](Training&) {
    misbehave({.misdeed = Misdeed::error, .where = where, .rank = 0, .call = 1, .seconds = 0}, nullptr);
  });
}

using Put = void (*)(FaultJob&);

const std::map<std::string, Put>& faults() {
  static const std::map<std::string, Put> all = {
      {"none", [](FaultJob&) {}},

      // Construction.
      {"other_channels",
       [](FaultJob& job) { change_options(job, [](BatchNormOptions& options) { options.num_features = 7; }); }},
      {"other_parameter_type",
       [](FaultJob& job) { change_options(job, [](BatchNormOptions& o) { o.parameter_type = DataType::f64; }); }},
      {"other_eps", [](FaultJob& job) { change_options(job, [](BatchNormOptions& options) { options.eps = 0.5; }); }},
      {"other_name",
       [](FaultJob& job) { change_options(job, [](BatchNormOptions& options) { options.name = "bn2x"; }); }},
      {"wrong_option",
       [](FaultJob& job) { change_options(job, [](BatchNormOptions& options) { options.eps = -1.0; }); }},
      {"other_exchange",
       [](FaultJob& job) {
         job.communicator_options.exchange = job.is_guilty() ? Exchange::all_reduce : Exchange::all_gather;
       }},
      {"other_groups",
       [](FaultJob& job) {
         job.make_communicator = [&job] {
           return Communicator::groups_of(job.is_guilty() ? 1 : 2, MPI_COMM_WORLD, job.communicator_options);
         };
       }},
      {"stopped_before_communicator",
       [](FaultJob& job) {
         if (job.is_guilty()) job.before_communicator = stop;
       }},
      {"stopped_before_layers",
       [](FaultJob& job) {
         if (job.is_guilty()) job.before_layers = stop;
       }},
      {"lonely_layer",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         insert(job, forward_of(1), [](Training& training) {
           training.note(1);
           BatchNormOptions options;
           options.num_features = 6;
           options.name = "lonely";
           const BatchNorm lonely(options, training.at(1).layer.communicator());
         });
       }},
      {"sum_for_forward",
       [](FaultJob& job) {
         if (job.is_guilty()) insert(job, forward_of(1), add_reproducibly);
       }},
      {"stopped_before_sum",
       [](FaultJob& job) {
         if (job.is_guilty()) insert(job, forward_of(1), [](Training&) { stop(); });
         if (!job.is_guilty()) insert(job, forward_of(1), add_reproducibly);
       }},
      {"lonely_communicator",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         job.gives_up = true;  // its layers would speak to the others while these find out that it is missing
         insert(job, forward_of(1), [&job](Training& training) {
           training.note(1);
           const Communicator lonely(MPI_COMM_WORLD, job.communicator_options);
         });
       }},

      // Order.
      {"skipped_forward",
       [](FaultJob& job) {
         if (job.is_guilty()) erase(job, forward_of(1));
       }},
      {"swapped_layers",
       [](FaultJob& job) {
         if (job.is_guilty()) std::swap(at(job, forward_of(1)), at(job, forward_of(2)));
       }},
      {"forward_for_backward",
       [](FaultJob& job) {
         if (job.is_guilty()) at(job, backward_of(2)) = forward(2);
       }},
      {"extra_step",
       [](FaultJob& job) {
         if (job.is_guilty()) job.script = steps(kSteps + 1);
       }},
      {"premature_finalize",
       [](FaultJob& job) {
         if (job.is_guilty()) job.script.resize(static_cast<std::size_t>(kPasses));
       }},
      {"use_after_finalize",
       [](FaultJob& job) {
         job.script.emplace_back([](Training& training) {
           MPI_Finalize();
           training.forward(0);
         });
       }},
      {"frozen_cache",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         at(job, backward_of(2)) = [](Training& training) {
           training.note(2);
           TrainedLayer& one = training.at(2);
           const BatchNormCache frozen = one.layer.forward_frozen(one.x, one.y);
           one.layer.backward(frozen, one.dy, one.dx, one.gradients);
         };
       }},
      {"begin_without_finish",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         at(job, forward_of(0)) = [](Training& training) { training.begin_forward(0); };
         job.errors_end_layers = true;
       }},

      // Exceptions.
      {"exception",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         at(job, backward_of(2)) = [](Training&) { throw std::runtime_error("no memory for the loss"); };
       }},
      {"exception_at_the_deadline",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         at(job, backward_of(2)) = [&job](Training&) {
           sleep_for(job.deadline + 0.02);
           throw std::runtime_error("no memory for the loss");
         };
       }},
      {"exception_before_gradients",
       [](FaultJob& job) {
         insert(job, 2 * kPasses, [](Training& training) { add_gradients(training, "[gradients] step 1"); });
         if (!job.is_guilty()) return;
         at(job, 2 * kPasses) = [](Training&) { throw std::runtime_error("the loss is not a number"); };
       }},
      {"caught_exception",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         // The handler's way out is the next step.
         job.script.erase(job.script.begin() + backward_of(2), job.script.begin() + backward_of(0) + 1);
       }},
      {"two_exceptions",
       [](FaultJob& job) {
         if (job.rank != job.guilty && job.rank != job.lowest_other()) return;
         at(job, backward_of(2)) = [](Training&) { throw std::runtime_error("no memory for the loss"); };
       }},

      // Arguments.
      {"null_pointer",
       [](FaultJob& job) {
         if (job.is_guilty()) at(job, forward_of(1)) = spoilt_forward(1, null_x);
       }},
      {"wrong_channels",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         at(job, forward_of(1)) =
             spoilt_forward(1, [](TrainedLayer& one) { one.x.shape.channels = one.y.shape.channels = 5; });
       }},
      {"other_data_type",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         at(job, forward_of(1)) =
             spoilt_forward(1, [](TrainedLayer& one) { one.x.type = one.y.type = DataType::bf16; });
       }},
      {"nan",
       [](FaultJob& job) {
         for (BatchNormOptions& options : job.layers) options.non_finite = NonFinitePolicy::error;
         if (!job.is_guilty()) return;
         at(job, forward_of(1)) = spoilt_forward(1, [](TrainedLayer& one) {
           one.x_data[4 * 3] = std::numeric_limits<float>::quiet_NaN();  // of channel 3
         });
       }},
      {"two_arguments",
       [](FaultJob& job) {
         if (job.is_guilty()) at(job, forward_of(1)) = spoilt_forward(1, null_x);
         if (job.rank == job.lowest_other()) {
           at(job, forward_of(1)) = spoilt_forward(1, [](TrainedLayer& one) { one.y.shape.channels = 5; });
         }
       }},

      // Missing ranks.
      {"stopped",
       [](FaultJob& job) {
         if (job.is_guilty()) insert(job, forward_of(1), [](Training&) { stop(); });
       }},
      {"stopped_all_reduce",
       [](FaultJob& job) {
         job.communicator_options.exchange = Exchange::all_reduce;
         if (job.is_guilty()) insert(job, forward_of(1), [](Training&) { stop(); });
       }},
      {"stopped_between_halves",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         at(job, forward_of(1)) = [](Training& training) {
           training.begin_forward(1);
           stop();
         };
       }},
      {"stopped_one_deadline",
       [](FaultJob& job) {
         const int highest_other = job.guilty == job.ranks - 1 ? job.ranks - 2 : job.ranks - 1;
         if (job.rank != highest_other) job.communicator_options.deadline_seconds = 600.0;
         if (job.is_guilty()) insert(job, forward_of(1), [](Training&) { stop(); });
       }},
      {"two_stopped",
       [](FaultJob& job) {
         const bool stops = job.is_guilty() || (job.ranks > 2 && job.rank == job.lowest_other());
         if (stops) insert(job, forward_of(1), [](Training&) { stop(); });
       }},
      {"sleeping",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         insert(job, forward_of(1), [&job](Training&) { sleep_for(2.0 * job.deadline + 1.0); });
       }},
      {"waking_at_the_deadline",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         insert(job, forward_of(1), [&job](Training&) { sleep_for(job.deadline + 0.25); });
       }},
      {"killed",
       [](FaultJob& job) {
         if (job.is_guilty()) insert(job, forward_of(1), [](Training&) { std::raise(SIGKILL); });
       }},
      {"left",
       [](FaultJob& job) {
         if (job.is_guilty()) insert(job, forward_of(1), [](Training&) { ::_exit(3); });
       }},
      {"stopped_while_joining",
       [](FaultJob& job) {
         if (job.is_guilty()) insert(job, forward_of(1), [](Training&) { stop(); });
         if (job.rank == job.lowest_other()) insert(job, forward_of(1), join);
       }},
      {"joined_too_long",
       [](FaultJob& job) {
         if (job.rank == job.lowest_other()) insert(job, forward_of(1), join);
         if (!job.is_guilty()) return;
         insert(job, forward_of(1), [&job](Training&) { sleep_for(job.deadline + 0.25); });
       }},
      {"gradients_missing",
       [](FaultJob& job) {
         insert(job, 2 * kPasses, [](Training& training) { add_gradients(training, "[gradients] step 1"); });
         if (job.is_guilty()) insert(job, 2 * kPasses, [](Training&) { stop(); });
       }},

      // MPI.
      {"mpi_error_all_gather", [](FaultJob& job) { fail_mpi(job, Where::start, Exchange::all_gather); }},
      {"mpi_error_all_reduce", [](FaultJob& job) { fail_mpi(job, Where::start, Exchange::all_reduce); }},
      {"mpi_error_test", [](FaultJob& job) { fail_mpi(job, Where::test, Exchange::automatic); }},
      {"mpi_error_duplicate",
       [](FaultJob& job) {
         if (!job.is_guilty()) return;
         job.before_layers = [] {  // the first layer's message, then its duplicate
           misbehave({.misdeed = Misdeed::error, .where = Where::start, .rank = 0, .call = 2, .seconds = 0}, nullptr);
         };
       }},
  };
  return all;
}

}  // namespace

FaultJob::FaultJob(int my_rank, int all_ranks, int guilty_rank, double deadline_seconds)
    : rank(my_rank), ranks(all_ranks), guilty(guilty_rank), deadline(deadline_seconds), script(steps(kSteps)) {
  communicator_options.deadline_seconds = deadline_seconds;
  make_communicator = [this] { return Communicator(MPI_COMM_WORLD, communicator_options); };
}

bool put_fault(const std::string& name, FaultJob& job) {
  const auto found = faults().find(name);
  if (found == faults().end()) return false;
  found->second(job);
  return true;
}

void put_varied_training(FaultJob& job) {
  job.script = steps(1);
  for (int i = 0; i < kLayers; ++i) job.script.emplace_back([i](Training& training) { training.begin_forward(i); });
  for (int i = kLayers; i-- > 0;) job.script.emplace_back([i](Training& training) { training.finish_forward(i); });
  job.script.emplace_back([&job](Training& training) {
    try {
      (job.rank == job.ranks - 1 ? spoilt_forward(1, null_x) : forward(1))(training);
    } catch (const ShapeError&) {  // of all ranks
    }
  });
  job.script.emplace_back([](Training& training) { add_gradients(training, "[gradients]"); });
  if (job.rank == 0) job.script.emplace_back([](Training& training) { training.step(); });
  job.script.emplace_back(join);
  job.script.emplace_back(end_together);
}

}  // namespace syncbn::testing
