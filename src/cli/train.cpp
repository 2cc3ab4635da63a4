// SPDX-License-Identifier: MIT
// syncbn train: one arm.
#include <cstdio>
#include <memory>

#include <mpi.h>

#include "agree.hpp"
#include "command.hpp"
#include "train/load_data.hpp"
#include "train/trainer.hpp"
#include "training_arguments.hpp"

namespace syncbn::cli {

namespace {

struct Arguments : TrainingArguments {
  std::string arm = "sync";
  std::string seed = "1";
};

void print_result(const train::RunDescription& run, const train::DataSet& data, const train::TrainingResult& result) {
  const train::TrainingOptions& training = run.training;
  std::printf("%s\n", describe(data).c_str());
  std::printf("arm %s, network %s, global batch %lld, seed %llu, %lld %s, %zu steps in %.1f s\n",
              run.arms[0].name().c_str(), training.network.c_str(), static_cast<long long>(training.batch),
              static_cast<unsigned long long>(training.seed), static_cast<long long>(run.ranks),
              run.ranks == 1 ? "rank" : "ranks", result.step_losses.size(), result.seconds);
  if (result.diverged) {
    std::printf("training diverged: the loss of step %zu is not finite; try a smaller --lr\n",
                result.step_losses.size());
  } else if (!result.epochs.empty()) {
    std::printf("train loss: %.6f\n", result.epochs.back().train_loss);
  }
  std::printf("test accuracy: %.2f %%\n", 100.0 * result.test_accuracy);
  std::printf("weights hash: %s\n", train::hex_of(result.weights_hash).c_str());
}

int run_train(const Arguments& arguments, MPI_Comm comm) {
  train::TrainingOptions training = arguments.training;
  training.seed = parse_seed("--seed", arguments.seed);
  const train::Arm arm = train::Arm::parse(arguments.arm);
  const train::DataSet data = train::load_data(arguments.data, comm);
  train::check_options(training, data);
  const train::RunDescription run{"train", data.name, training, {arm}, {training.seed}, size_of(comm)};

  train::RunFolder folder(arguments.out, comm);
  train::Progress progress(arguments.progress_style());
  progress.begin(arm.name(), training.epochs);
  const train::Observer observer = train::make_observer(arm.name(), training.seed, progress, folder);
  const train::TrainingResult result = train::train(data, training, arm, comm, observer);
  progress.end();

  if (rank_of(comm) == 0) print_result(run, data, result);
  folder.write("run.json", train::run_json(run, {{{arm, training.seed, result}}, {}}));
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
  command->add_option("--out", arguments->out, "Folder for metrics.jsonl and run.json (default: no files)")
      ->type_name("DIR");
  command->footer(
      "Try:\n  mpirun -n 4 syncbn train --arm sync --epochs 3\n  syncbn train --data mnist/ --network cnn --out run");
  return [arguments] { return with_agreed_failures([&] { return run_train(*arguments, MPI_COMM_WORLD); }); };
}

}  // namespace syncbn::cli
