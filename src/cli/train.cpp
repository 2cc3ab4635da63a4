// SPDX-License-Identifier: MIT
// syncbn train: one arm.
#include <cstdio>
#include <memory>
#include <optional>

#include <mpi.h>

#include "agree.hpp"
#include "command.hpp"
#include "train/checkpoint.hpp"
#include "train/collectives.hpp"
#include "train/idle_ranks.hpp"
#include "train/load_data.hpp"
#include "train/stop_signals.hpp"
#include "train/trainer.hpp"
#include "training_arguments.hpp"
#include "usage.hpp"

namespace syncbn::cli {

namespace {

struct Arguments : TrainingArguments {
  std::string arm = "sync";
  std::string seed = "1";
  std::optional<Index> checkpoint_every;  ///< Steps.
  bool resumes = false;
};

void check_checkpoint_arguments(const Arguments& arguments) {
  if (arguments.checkpoint_every && *arguments.checkpoint_every < 1) {
    throw train::UsageError("--checkpoint-every is " + std::to_string(*arguments.checkpoint_every) +
                            ", wanted 1 step or more");
  }
  if (!arguments.out.empty()) return;
  if (arguments.checkpoint_every) throw train::UsageError("--checkpoint-every needs a folder: --out");
  if (arguments.resumes) throw train::UsageError("--resume needs the folder of the run that is to go on: --out");
}

/// The checkpoint in --out, with metrics.jsonl cut back to it; nothing without --resume. Collective.
std::optional<train::Checkpoint> load_start(const Arguments& arguments, const train::TrainingOptions& training,
                                            const train::Arm& arm, const train::DataSet& data, MPI_Comm comm) {
  if (!arguments.resumes) return std::nullopt;
  const train::TrainingKey key = train::key_of(data, training, arm, size_of(comm));
  train::Checkpoint start = train::load_checkpoint(arguments.out, key, comm);
  train::on_first_rank(comm, [&] { train::trim_metrics(arguments.out, start); });
  return start;
}

void print_result(const train::RunDescription& run, const train::DataSet& data, const train::TrainingResult& result) {
  const train::TrainingOptions& training = run.options.training;
  std::printf("%s\n", describe(data).c_str());
  std::printf("arm %s, network %s, global batch %lld%s, seed %llu, %lld %s, %zu steps in %.1f s\n",
              run.options.arms[0].name().c_str(), training.network.c_str(), static_cast<long long>(training.batch),
              shard_clause(training.sharding).c_str(), static_cast<unsigned long long>(training.seed),
              static_cast<long long>(run.ranks), run.ranks == 1 ? "rank" : "ranks", result.step_losses.size(),
              result.seconds);
  if (result.diverged) {
    std::printf("training diverged: the loss of step %zu is not finite; try a smaller --lr\n",
                result.step_losses.size());
  } else if (!result.epochs.empty()) {
    std::printf("train loss: %.6f\n", result.epochs.back().train_loss);
  }
  std::printf("test accuracy: %.2f %%\n", 100.0 * result.test_accuracy);
  const bool is_split = run.options.arms[0].kind != train::Arm::Kind::single;
  const std::string idle = is_split ? train::idle_sentence({training.batch}, run.ranks) : "";
  if (!idle.empty()) std::printf("%s\n", idle.c_str());
  std::printf("weights hash: %s\n", train::hex_of(result.weights_hash).c_str());
}

/// For a training that a signal ended.
void print_stop(const Arguments& arguments, std::size_t steps_done) {
  if (arguments.out.empty()) {
    std::printf("stopped after step %zu; nothing was kept, because there is no --out\n", steps_done);
  } else {
    std::printf("stopped after step %zu; the same command with --resume goes on from there\n", steps_done);
  }
}

int run_train(const Arguments& arguments, const std::string& command_line, MPI_Comm comm) {
  check_checkpoint_arguments(arguments);
  train::TrainingOptions training = arguments.training;
  training.seed = parse_seed("--seed", arguments.seed);
  const train::Arm arm = train::Arm::parse(arguments.arm);
  const train::DataSet data = train::load_data(arguments.data, comm);
  train::check_options(training, data);
  const train::RunDescription run =
      train::describe_run("train", command_line, data, {training, {arm}, {training.batch}, {training.seed}}, comm);
  const train::TrainingId id{arm.name(), training.batch, training.seed, run.ranks};

  const std::optional<train::Checkpoint> start = load_start(arguments, training, arm, data, comm);
  train::RunFolder folder(arguments.out, comm,
                          start ? train::RunFolder::Earlier::continued : train::RunFolder::Earlier::removed);
  folder.write("run.json", train::run_json(run));
  train::Progress progress(arguments.progress_style());
  progress.begin(arm.name(), training.epochs);
  const train::Observer observer = train::make_observer(id, progress, folder);
  const train::StopSignals signals;
  const train::Continuation continuation{arguments.out, arguments.checkpoint_every.value_or(0),
                                         start ? &*start : nullptr, [&] { return signals.has_come(); }};
  const train::TrainingResult result = train::train(data, training, arm, comm, observer, continuation);
  progress.end();

  if (result.stopped) {
    if (rank_of(comm) == 0) print_stop(arguments, result.step_losses.size());
    folder.finish();
    return kOk;
  }
  if (rank_of(comm) == 0) print_result(run, data, result);
  folder.record(train::end_line(id, result));
  folder.write("run.json", train::run_json(run, {{{arm, run.ranks, training.batch, training.seed, result}}, {}}));
  folder.finish();
  return result.diverged ? kCheckFailed : kOk;
}

}  // namespace

CommandBody add_train(CLI::App& tool) {
  CLI::App* command =
      tool.add_subcommand("train", "Trains a small network in one arm; ends with a hash of its weights");
  auto arguments = std::make_shared<Arguments>();
  command
      ->add_option(
          "--arm", arguments->arm,
          "sync: all ranks share batch statistics; local: none do; group:k: blocks of k ranks do; single: rank "
          "0 alone trains with the full batch")
      ->capture_default_str()
      ->type_name("ARM");
  add_training_options(*command, *arguments);
  command->add_option("--seed", arguments->seed, "Of initial weights and sample order")
      ->capture_default_str()
      ->type_name("S");
  command
      ->add_option("--out", arguments->out,
                   "Folder for metrics.jsonl, run.json and checkpoint.syncbn (default: no files)")
      ->type_name("DIR");
  command
      ->add_option("--checkpoint-every", arguments->checkpoint_every,
                   "Steps between checkpoints (default: one at each epoch's end)")
      ->type_name("STEPS");
  command->add_flag("--resume", arguments->resumes,
                    "Go on from the checkpoint in --out, with the bits of a training that was never stopped");
  command->footer(
      "SIGTERM and SIGINT end the training at the end of a step, with a checkpoint if there is --out.\n\n"
      "Try:\n  mpirun -n 4 syncbn train --arm sync --epochs 3\n  syncbn train --data mnist/ --network cnn --out run");
  return [arguments, command] {
    return with_agreed_failures([&] { return run_train(*arguments, command_line_of(*command), MPI_COMM_WORLD); });
  };
}

}  // namespace syncbn::cli
