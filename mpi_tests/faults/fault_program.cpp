// SPDX-License-Identifier: MIT
// fault_program FAULT GUILTY DEADLINE: trains a little; rank GUILTY does something wrong. Every rank that lives says in one
// line how it ended: "rank=1 outcome=timeout seconds=1.61 untouched=yes after=unusable text=...". FAULT `random` takes a
// seed, and whose fault it is comes from that.
//
// With SYNCBN_FAULT_REPORTS=FOLDER the line is written to FOLDER/rank.N, too, and the rank waits until there is a file
// FOLDER/end before it ends the job: what a rank prints is lost when another one calls MPI_Abort.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>

#include <mpi.h>
#include <unistd.h>

#include "faults/fault_jobs.hpp"
#include "faults/shim.hpp"

namespace syncbn::testing {
namespace {

constexpr int kAborted = 7;
constexpr double kMostToEnd = 20.0;  // seconds, for the others
constexpr double kToEnd = 3.0;       // seconds, if there is no folder

std::string folder() {
  const char* name = std::getenv("SYNCBN_FAULT_REPORTS");
  return name == nullptr ? std::string() : std::string(name) + "/";
}

/// A file that is there only when it is complete.
void write_file(const std::string& name, const std::string& text) {
  if (folder().empty()) return;
  const std::string path = folder() + name;
  std::ofstream(path + ".new") << text << "\n";
  std::rename((path + ".new").c_str(), path.c_str());
}

const char* name_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::none:
      return "none";
    case ErrorCode::shape:
      return "shape";
    case ErrorCode::option:
      return "option";
    case ErrorCode::state:
      return "state";
    case ErrorCode::mismatch:
      return "mismatch";
    case ErrorCode::mpi:
      return "mpi";
    case ErrorCode::non_finite:
      return "non_finite";
    case ErrorCode::timeout:
      return "timeout";
  }
  return "unknown";
}

/// How a rank ended.
struct Outcome {
  std::string name;  ///< "done", a class of errors, or "exception".
  double seconds = 0;
  bool is_untouched = true;
  std::string after = "not_tried";
  std::string text;
};

void report(int rank, const Outcome& outcome) {
  std::ostringstream line;
  line << "rank=" << rank << " outcome=" << outcome.name << " seconds=" << outcome.seconds
       << " untouched=" << (outcome.is_untouched ? "yes" : "no") << " after=" << outcome.after
       << " calls=" << collective_calls() << " text=" << outcome.text;
  std::printf("%s\n", line.str().c_str());
  std::fflush(stdout);
  write_file("rank." + std::to_string(rank), line.str());
}

int my_rank = 0;

void announce(const std::string& words) {
  std::printf("rank=%d misdeed: %s\n", my_rank, words.c_str());
  std::fflush(stdout);
  write_file("misdeed." + std::to_string(my_rank), words);
}

/// "unusable" if the call says so at once, else what it does.
template <class Call>
std::string refusal(const Call& call) {
  Stopwatch watch;
  try {
    call();
    return "works";
  } catch (const Error& error) {
    if (watch.seconds() > 0.25) return "refused_late";
    return std::string(error.what()).rfind("the communicator cannot be used any more", 0) == 0 ? "unusable" : "refused";
  }
}

/// What a program can still do with the communicator.
std::string try_passes(Training& training) {
  const std::string pass = refusal([&] { training.step(); });
  if (pass != "unusable") return pass;
  const std::string layer = refusal([&] { BatchNorm(three_layers()[0], training.at(0).layer.communicator()); });
  return layer == pass ? pass : "new_layer_" + layer;
}

std::string try_layers(const std::optional<Communicator>& communicator) {
  if (!communicator) return "no_communicator";
  Stopwatch watch;
  return refusal([&] { Training(three_layers(), *communicator, watch).step(); });
}

Outcome outcome_of(const Error& error, const Stopwatch& watch) {
  return {name_of(error.code()), watch.seconds(), true, "not_tried", error.what()};
}

Outcome run(FaultJob& job) {
  Stopwatch watch;
  std::optional<Communicator> communicator;
  try {
    job.before_communicator();
    watch.start();
    communicator.emplace(job.make_communicator());
    job.before_layers();
    Training training(job.layers, *communicator, watch);
    try {
      for (const Action& action : job.script) action(training);
    } catch (const Error& error) {
      if (job.errors_end_layers) throw;
      misbehave({}, nullptr);
      Outcome outcome = outcome_of(error, watch);
      outcome.is_untouched = training.is_untouched();
      if (!job.gives_up) outcome.after = try_passes(training);
      return outcome;
    }
  } catch (const Error& error) {
    Outcome outcome = outcome_of(error, watch);
    if (job.errors_end_layers) throw;
    outcome.after = try_layers(communicator);
    return outcome;
  }
  return {"done", 0, true, "not_tried", ""};
}

/// An exception that ends this rank's part goes up through the scopes of layers and communicator.
Outcome run_guarded(FaultJob& job) {
  try {
    return run(job);
  } catch (const Error& error) {
    return {name_of(error.code()), 0, true, "not_tried", error.what()};
  } catch (const std::exception& error) {
    return {"exception", 0, true, "not_tried", error.what()};
  }
}

/// Until the others have said how they ended.
void wait_for_end() {
  Stopwatch watch;
  const double limit = folder().empty() ? kToEnd : kMostToEnd;
  while (watch.seconds() < limit && ::access((folder() + "end").c_str(), F_OK) != 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

bool is_finalized() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  return finalized != 0;
}

std::uint64_t seed_from_environment() {
  const char* seed = std::getenv("SYNCBN_FAULT_SEED");
  return seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10);
}

/// Collective calls of the varied training on rank 0, which makes most.
constexpr int kVariedCalls = 34;

void put_random_fault(FaultJob& job) {
  const std::uint64_t seed = seed_from_environment();
  put_varied_training(job);
  job.communicator_options.exchange = seed % 2 == 0 ? Exchange::all_gather : Exchange::all_reduce;
  const Plan plan = plan_from(seed, job.ranks, kVariedCalls, job.deadline);
  misbehave(job.rank == plan.rank ? plan : Plan{}, announce);
}

int fault_main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int ranks = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &my_rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  write_file("pid." + std::to_string(my_rank), std::to_string(::getpid()));
  if (argc != 4) {
    if (my_rank == 0) std::fprintf(stderr, "usage: fault_program FAULT GUILTY_RANK DEADLINE_SECONDS\n");
    MPI_Finalize();
    return 2;
  }
  const std::string fault = argv[1];
  FaultJob job(my_rank, ranks, std::atoi(argv[2]), std::atof(argv[3]));
  if (fault == "random") {
    put_random_fault(job);
  } else if (!put_fault(fault, job)) {
    if (my_rank == 0) std::fprintf(stderr, "there is no fault '%s'\n", fault.c_str());
    MPI_Finalize();
    return 2;
  }

  const Outcome outcome = run_guarded(job);
  report(my_rank, outcome);
  if (is_finalized()) return 0;
  if (outcome.name != "done" && outcome.after != "works") {
    wait_for_end();
    MPI_Abort(MPI_COMM_WORLD, kAborted);
  }
  MPI_Finalize();
  return 0;
}

}  // namespace
}  // namespace syncbn::testing

int main(int argc, char** argv) { return syncbn::testing::fault_main(argc, argv); }
