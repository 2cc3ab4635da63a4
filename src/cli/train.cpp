// SPDX-License-Identifier: MIT
// syncbn train: one arm.
#include <cmath>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>

#include <mpi.h>

#include "agree.hpp"
#include "command.hpp"
#include "train/checkpoint.hpp"
#include "train/collectives.hpp"
#include "train/earlier_run.hpp"
#include "train/idle_ranks.hpp"
#include "train/load_data.hpp"
#include "train/report_text.hpp"
#include "train/stop_signals.hpp"
#include "train/trainer.hpp"
#include "train_records.hpp"
#include "training_arguments.hpp"
#include "usage.hpp"

namespace syncbn::cli {

namespace {

struct Arguments : TrainingArguments {
  std::string arm = "sync";
  std::string seed = "1";
  std::optional<Index> checkpoint_every;  ///< Steps.
  bool resumes = false;
  bool overwrites = false;
  std::string json;  ///< A file, or "-" for stdout.

  train::Wish wish() const {
    return resumes ? train::Wish::resume : overwrites ? train::Wish::overwrite : train::Wish::none;
  }
};

void check_checkpoint_arguments(const Arguments& arguments) {
  if (arguments.checkpoint_every && *arguments.checkpoint_every < 1) {
    throw train::UsageError("--checkpoint-every is " + std::to_string(*arguments.checkpoint_every) +
                            ", wanted 1 step or more");
  }
  if (!arguments.out.empty()) return;
  if (arguments.checkpoint_every) throw train::UsageError("--checkpoint-every needs a folder: --out");
  if (arguments.resumes) throw train::UsageError("--resume needs the folder of the run that is to go on: --out");
  if (arguments.overwrites) throw train::UsageError("--overwrite needs the folder of the run that is to go: --out");
}

/// What becomes of --out, as rank 0 finds it; a notice is said. Collective. Throws UsageError on all ranks.
train::FolderPlan plan_out(const Arguments& arguments, const train::RunDescription& run, MPI_Comm comm) {
  train::FolderPlan plan;
  if (arguments.out.empty()) return plan;
  train::on_first_rank(comm, [&] { plan = train::plan_folder(arguments.out, arguments.wish(), run); });
  train::broadcast(comm, plan.has_checkpoint);
  if (!plan.notice.empty()) std::fprintf(stderr, "syncbn train: %s\n", plan.notice.c_str());
  return plan;
}

/// The checkpoint in --out. Collective.
train::Checkpoint load_start(const Arguments& arguments, const train::TrainingOptions& training, const train::Arm& arm,
                             const train::DataSet& data, MPI_Comm comm) {
  return train::load_checkpoint(arguments.out, train::key_of(data, training, arm, size_of(comm)), comm);
}

/// Cuts metrics.jsonl back to the checkpoint, and gives that what only metrics.jsonl knows. Collective.
void take_up_metrics(const Arguments& arguments, train::Checkpoint& start, MPI_Comm comm) {
  train::on_first_rank(comm, [&] {
    train::trim_metrics(arguments.out, start);
    train::recall_costs(arguments.out, start);
  });
}

train::TrainingId id_of(const train::RunDescription& run) {
  return {run.options.arms.front().name(), run.options.batches.front(), run.options.seeds.front(), run.ranks};
}

void print_result(const train::RunDescription& run, const train::DataSet& data, const train::TrainingResult& result) {
  const train::TrainingOptions& training = run.options.training;
  const std::string steps = train::counted(static_cast<Index>(result.step_losses.size()), "step");
  std::printf("%s\n", describe(data).c_str());
  std::printf("arm %s, network %s, global batch %lld%s, seed %llu, %s, %s in %.1f s\n",
              run.options.arms[0].name().c_str(), training.network.c_str(), static_cast<long long>(training.batch),
              shard_clause(training.sharding).c_str(), static_cast<unsigned long long>(training.seed),
              train::counted(run.ranks, "rank").c_str(), steps.c_str(), result.seconds);
  if (result.diverged) {
    const bool is_loss = !std::isfinite(result.step_losses.back());
    const std::string last = std::to_string(result.step_losses.size());
    std::printf("training diverged: the %s not finite; try a smaller --lr\n",
                (is_loss ? "loss of step " + last + " is" : "weights after step " + last + " are").c_str());
  } else {
    if (!result.epochs.empty()) std::printf("train loss: %.6f\n", result.epochs.back().train_loss);
    std::printf("test accuracy: %.2f %%\n", 100.0 * result.test_accuracy);
  }
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

/// Says how the training ended and leaves its records. Collective. Throws DataError on all ranks.
void conclude(const Arguments& arguments, const train::RunDescription& run, const train::DataSet& data,
              const train::TrainingResult& result, TrainRecords& records, train::RunFolder& folder, MPI_Comm comm) {
  const bool speaks = rank_of(comm) == 0 && !records.has_stdout();
  if (result.stopped) {
    if (speaks) print_stop(arguments, result.step_losses.size());
    records.write_stopped();
  } else {
    if (speaks) print_result(run, data, result);
    folder.record(train::end_line(id_of(run), result));
    records.write_finished(result);
  }
  folder.finish();
}

int run_train(const Arguments& arguments, const std::string& command_line, MPI_Comm comm) {
  check_checkpoint_arguments(arguments);
  train::TrainingOptions training = arguments.training;
  training.seed = parse_seed("--seed", arguments.seed);
  const train::Arm arm = train::Arm::parse(arguments.arm);
  const train::DataSet data = train::load_data(arguments.data, comm);
  train::check_options(training, data);
  const std::string unreached = train::unreached_milestones(training);
  if (!unreached.empty() && rank_of(comm) == 0) std::fprintf(stderr, "syncbn train: %s\n", unreached.c_str());
  train::RunDescription run =
      train::describe_run("train", command_line, data, {training, {arm}, {training.batch}, {training.seed}}, comm);
  const train::FolderPlan plan = plan_out(arguments, run, comm);
  std::optional<train::Checkpoint> start;
  if (plan.has_checkpoint) {
    start = load_start(arguments, training, arm, data, comm);
    run.first_step = static_cast<Index>(start->step_losses.size()) + 1;
    if (rank_of(comm) == 0) run.earlier = train::sessions_in(std::filesystem::path(arguments.out) / "run.json");
  }
  TrainRecords records(arguments.out, arguments.json, run, comm);
  records.begin();
  if (start) take_up_metrics(arguments, *start, comm);
  train::RunFolder folder(arguments.out, comm, plan.earlier);
  try {
    records.write_running();
    train::Progress progress(arguments.progress_style());
    progress.begin(arm.name(), training.epochs);
    const train::Observer observer = train::make_observer(id_of(run), progress, folder);
    const train::StopSignals signals;
    const train::Continuation continuation{arguments.out, arguments.checkpoint_every.value_or(0),
                                           start ? &*start : nullptr, [&] { return signals.has_come(); }};
    const train::TrainingResult result =
        train::train(data, training, arm, comm, records.follow(observer, start ? &*start : nullptr), continuation);
    progress.end();
    conclude(arguments, run, data, result, records, folder, comm);
    return result.diverged ? kCheckFailed : kOk;
  } catch (const std::exception& error) {
    records.write_failed(error.what());
    throw;
  }
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
      ->add_option(
          "--out", arguments->out,
          "Folder for metrics.jsonl, run.json and checkpoint.syncbn; without --resume or --overwrite there must "
          "be no earlier run in it (default: no files)")
      ->type_name("DIR");
  command
      ->add_option("--checkpoint-every", arguments->checkpoint_every,
                   "Steps between checkpoints (default: one at each epoch's end)")
      ->type_name("STEPS");
  CLI::Option* resume = command->add_flag("--resume", arguments->resumes,
                                          "Go on from the checkpoint in --out, with the bits of a training that was "
                                          "never stopped; where there is none yet, "
                                          "begin (so a job may always be started with it)");
  command->add_flag("--overwrite", arguments->overwrites, "Replace the earlier run in --out")->excludes(resume);
  command
      ->add_option(
          "--json", arguments->json,
          "One JSON object to a file: how it was made, all epochs, result and state; without FILE, or with -, to "
          "stdout, and nothing else there")
      ->expected(0, 1)
      ->default_str("-")
      ->type_name("[FILE]");
  command->footer(
      "Exit code 1 if the training diverges: at the first loss that is not finite, or at the end of an epoch with "
      "weights "
      "that are not. SIGTERM and SIGINT end the training at the end of a step, with a checkpoint if there is --out.\n\n"
      "Try:\n  mpirun -n 4 syncbn train --arm sync --epochs 3\n  syncbn train --data mnist/ --network cnn --out run");
  return [arguments, command] {
    return with_agreed_failures([&] { return run_train(*arguments, command_line_of(*command), MPI_COMM_WORLD); });
  };
}

}  // namespace syncbn::cli
