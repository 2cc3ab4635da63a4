// SPDX-License-Identifier: MIT
// The command-line options that train and compare share, and their failures.
#pragma once

#include <charconv>
#include <string>

#include <CLI/CLI.hpp>

#include "choice.hpp"
#include "failure.hpp"
#include "train/errors.hpp"
#include "train/progress.hpp"
#include "train/trainer.hpp"

namespace syncbn::cli {

struct TrainingArguments {
  train::TrainingOptions training;
  std::string data;  ///< Folder; empty: built-in images.
  std::string out;   ///< Folder.
  bool is_quiet = false;

  /// What a person sees on stderr.
  train::Progress::Style progress_style() const {
    return is_quiet ? train::Progress::Style::quiet : train::Progress::style_of_stderr();
  }
};

/// ", shard NAME" for the line that says how a training was made; nothing for iid.
inline std::string shard_clause(const train::Sharding& sharding) {
  return sharding.kind == train::Sharding::Kind::iid ? "" : ", shard " + sharding.name();
}

inline void add_sharding(CLI::App& command, train::Sharding& sharding) {
  const auto check = [](const std::string& text) {
    try {
      train::Sharding::parse(text);
    } catch (const train::UsageError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const auto assign = [&sharding](const std::string& text) { sharding = train::Sharding::parse(text); };
  command
      .add_option_function<std::string>("--shard", assign,
                                        "Which samples of a global batch go to which rank: in shuffled order; sorted "
                                        "by class; or with a class mix of "
                                        "its own for each eighth of the batch, from a symmetric Dirichlet distribution "
                                        "(a small ALPHA for few classes)")
      ->check(CLI::Validator(check, ""))
      ->type_name("iid|by-class|dirichlet:ALPHA")
      ->default_str(sharding.name());
}

/// Declares the options; the values that `arguments` has are their defaults.
inline void add_training_options(CLI::App& command, TrainingArguments& arguments) {
  train::TrainingOptions& training = arguments.training;
  command
      .add_option(
          "--data", arguments.data,
          "Folder with IDX files under MNIST's names, raw or .gz, or with CIFAR-10's binary files (default: built-in "
          "images)")
      ->type_name("DIR");
  command.add_option("--network", training.network, "One of " + train::network_names())
      ->capture_default_str()
      ->type_name("NAME");
  command.add_option("--epochs", training.epochs, "Passes over the training images")
      ->capture_default_str()
      ->type_name("N");
  command.add_option("--batch", training.batch, "Global batch: samples per step over all ranks")
      ->capture_default_str()
      ->type_name("N");
  add_sharding(command, training.sharding);
  command.add_option("--lr", training.sgd.learning_rate, "Learning rate at the start")
      ->capture_default_str()
      ->type_name("RATE");
  add_choice<train::Schedule>(command, "--schedule", training.sgd.schedule, "How the learning rate goes on",
                              {{"cosine", train::Schedule::cosine},
                               {"constant", train::Schedule::constant},
                               {"multistep", train::Schedule::multistep}});
  command
      .add_option("--milestones", training.sgd.milestones,
                  "For multistep: after so many epochs each, like 3,6, the rate is multiplied by --lr-gamma")
      ->delimiter(',')
      ->type_name("LIST");
  command.add_option("--lr-gamma", training.sgd.lr_gamma, "Factor of multistep")->capture_default_str()->type_name("F");
  command.add_option("--warmup", training.sgd.warmup_steps, "Steps over which the rate rises linearly at the start")
      ->capture_default_str()
      ->type_name("STEPS");
  command.add_option("--momentum", training.sgd.momentum, "Momentum of SGD")->capture_default_str()->type_name("M");
  command.add_option("--weight-decay", training.sgd.weight_decay, "Weight decay")
      ->capture_default_str()
      ->type_name("D");
  command.add_option("--threads", training.threads, "Threads of each rank for batch norm; the result is the same")
      ->capture_default_str()
      ->type_name("T");
  command.add_flag("--quiet", arguments.is_quiet, "No progress on stderr");
}

/// A whole number from 0 to 2^64 - 1; CLI11 would take -1 for the largest one. Throws UsageError.
inline std::uint64_t parse_seed(const std::string& flag, const std::string& text) {
  std::uint64_t seed = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, seed);
  if (error != std::errc() || stop != end) {
    throw train::UsageError(flag + " has '" + text + "', wanted a whole number, 0 or more");
  }
  return seed;
}

/// Runs the body of a subcommand. The trainer's errors are the same on all ranks: they become AgreedFailure.
template <class Body>
int with_agreed_failures(const Body& body) {
  try {
    return body();
  } catch (const train::DataError& error) {
    throw AgreedFailure({kBadData, error.what()});
  } catch (const train::UsageError& error) {
    throw AgreedFailure({kUsage, error.what()});
  }
}

/// "built-in: 3000 training and 1000 test images of 12 x 12 pixels", with colours ", 3 channels".
inline std::string describe(const train::DataSet& data) {
  const train::ImageShape& shape = data.train.shape;
  return data.name + ": " + std::to_string(data.train.count) + " training and " + std::to_string(data.test.count) +
         " test images of " + std::to_string(shape.height) + " x " + std::to_string(shape.width) + " pixels" +
         (shape.channels > 1 ? ", " + std::to_string(shape.channels) + " channels" : "");
}

}  // namespace syncbn::cli
