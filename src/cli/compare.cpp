// SPDX-License-Identifier: MIT
// syncbn compare: the same training with batch norm over the full batch, over all ranks, and on each rank alone.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>

#include <mpi.h>

#include "agree.hpp"
#include "command.hpp"
#include "train/comparison.hpp"
#include "train/load_data.hpp"
#include "training_arguments.hpp"

namespace syncbn::cli {

namespace {

struct Arguments : TrainingArguments {
  Arguments() {
    training.network = "mlp";  // one value per sample and channel: here small batches hurt most
    training.epochs = 8;
    training.batch = 16;
    out = "syncbn-compare";
  }
  std::string arms = "single,sync,local";
  std::string seeds = "1";
};

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  for (std::size_t first = 0; first <= list.size();) {
    const std::size_t comma = std::min(list.find(',', first), list.size());
    if (comma > first) parts.push_back(list.substr(first, comma - first));
    first = comma + 1;
  }
  return parts;
}

std::vector<train::Arm> parse_arms(const std::string& list) {
  std::vector<train::Arm> arms;
  for (const std::string& name : split(list)) {
    arms.push_back(train::Arm::parse(name));
    if (std::any_of(arms.begin(), arms.end() - 1,
                    [&](const train::Arm& arm) { return arm.name() == arms.back().name(); })) {
      throw train::UsageError("--arms names " + name + " twice");
    }
  }
  if (arms.empty()) throw train::UsageError("--arms is empty, wanted some of single, sync, local and group:k");
  return arms;
}

/// "3" is 1, 2, 3; "3,5" is 3 and 5, and "3," is 3 alone.
std::vector<std::uint64_t> parse_seeds(const std::string& text) {
  constexpr std::uint64_t kMaxSeeds = 1000;
  std::vector<std::uint64_t> seeds;
  for (const std::string& part : split(text)) seeds.push_back(parse_seed("--seeds", part));
  if (text.find(',') == std::string::npos && seeds.size() == 1) {
    const std::uint64_t count = seeds[0];
    if (count < 1 || count > kMaxSeeds) {
      throw train::UsageError("--seeds asks for " + text + " trainings of each arm, wanted 1 to " +
                              std::to_string(kMaxSeeds));
    }
    seeds.clear();
    for (std::uint64_t seed = 1; seed <= count; ++seed) seeds.push_back(seed);
  }
  if (seeds.empty()) throw train::UsageError("--seeds is empty, wanted how many, or a list like 3,5");
  return seeds;
}

/// One arm over all seeds.
struct ArmSummary {
  double train_loss = 0;
  double accuracy = 0;
  double worst_accuracy = 1;
  double best_accuracy = 0;
  double seconds = 0;
  bool has_diverged = false;
};

ArmSummary summarize(const train::Comparison& comparison, const train::Arm& arm) {
  ArmSummary summary;
  double count = 0;
  for (const train::ArmRun& run : comparison.runs) {
    if (run.arm.name() != arm.name()) continue;
    const train::TrainingResult& result = run.result;
    ++count;
    summary.train_loss += result.epochs.empty() ? std::nan("") : result.epochs.back().train_loss;
    summary.accuracy += result.test_accuracy;
    summary.worst_accuracy = std::min(summary.worst_accuracy, result.test_accuracy);
    summary.best_accuracy = std::max(summary.best_accuracy, result.test_accuracy);
    summary.seconds += result.seconds;
    summary.has_diverged = summary.has_diverged || result.diverged;
  }
  summary.train_loss /= count;
  summary.accuracy /= count;
  summary.seconds /= count;
  return summary;
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

std::string range_text(const train::ShareSizes& sizes) {
  const std::string smallest = std::to_string(sizes.smallest);
  return sizes.smallest == sizes.largest ? smallest : smallest + "-" + std::to_string(sizes.largest);
}

void print_table(const train::RunDescription& run, const train::Comparison& comparison) {
  std::printf("\n%-10s %14s %16s %11s %14s %9s\n", "arm", "samples a rank", "normalized over", "train loss",
              "test accuracy", "seconds");
  for (const train::Arm& arm : run.arms) {
    const ArmSummary summary = summarize(comparison, arm);
    const std::string train_loss = summary.has_diverged      ? "diverged"
                                   : run.training.epochs > 0 ? fixed(summary.train_loss, 4)
                                                             : "-";
    std::printf("%-10s %14s %16s %11s %12.2f %% %9.1f", arm.name().c_str(),
                range_text(train::samples_per_rank(arm, run.training.batch, run.ranks)).c_str(),
                range_text(train::samples_per_norm(arm, run.training.batch, run.ranks)).c_str(), train_loss.c_str(),
                100.0 * summary.accuracy, summary.seconds);
    if (run.seeds.size() > 1) {
      std::printf("  (%.2f to %.2f over %zu seeds)", 100.0 * summary.worst_accuracy, 100.0 * summary.best_accuracy,
                  run.seeds.size());
    }
    std::printf("\n");
  }
  std::printf("\n");
}

void print_check(const train::SyncCheck& check) {
  std::printf("seed %llu: ", static_cast<unsigned long long>(check.seed));
  if (check.sync.same_bits) {
    std::printf("sync and single end with the same bits in every weight: passed\n");
    return;
  }
  std::printf("sync from single: weights %.2g, loss %.2g (first %lld steps %.2g)", check.sync.weights, check.sync.loss,
              static_cast<long long>(train::kEarlySteps), check.sync.early_loss);
  if (check.control) {
    std::printf("; one rounding in the initial weights makes %.2g, %.2g (%.2g), and %g times that is allowed",
                check.control->weights, check.control->loss, check.control->early_loss, train::kSlack);
  }
  std::printf(": %s\n", check.has_passed ? "passed" : "FAILED");
}

/// The arms that diverged with any seed: "single, sync".
std::string diverged_arms(const train::RunDescription& run, const train::Comparison& comparison) {
  std::string names;
  for (const train::Arm& arm : run.arms) {
    if (summarize(comparison, arm).has_diverged) names += (names.empty() ? "" : ", ") + arm.name();
  }
  return names;
}

/// No check can say anything of a training that has no end to compare with.
bool has_verdict(const train::Comparison& comparison, const train::SyncCheck& check) {
  return std::none_of(comparison.runs.begin(), comparison.runs.end(), [&](const train::ArmRun& run) {
    return run.seed == check.seed && run.arm.kind == train::Arm::Kind::single && run.result.diverged;
  });
}

/// The outcome in plain words.
std::string conclusion(const train::RunDescription& run, const train::Comparison& comparison) {
  const auto has = [&](train::Arm::Kind kind) {
    return std::any_of(run.arms.begin(), run.arms.end(), [&](const train::Arm& arm) { return arm.kind == kind; });
  };
  const bool has_failed =
      std::any_of(comparison.checks.begin(), comparison.checks.end(),
                  [&](const train::SyncCheck& check) { return !check.has_passed && has_verdict(comparison, check); });
  if (has_failed) return "Synchronized batch norm did not train like the full batch: this is a fault.";
  if (const std::string arms = diverged_arms(run, comparison); !arms.empty()) {
    return "Training diverged in " + arms + ": there is nothing to compare; try a smaller --lr.";
  }

  if (run.training.epochs == 0) return "No epochs, no training: all arms are as they started.";

  std::string text;
  if (!comparison.checks.empty()) {
    const bool same_bits = std::all_of(comparison.checks.begin(), comparison.checks.end(),
                                       [](const train::SyncCheck& check) { return check.sync.same_bits; });
    text = "Synchronized batch norm on " + std::to_string(run.ranks) + (run.ranks == 1 ? " rank" : " ranks") +
           " trained like the full batch in one process, " + (same_bits ? "to the last bit" : "up to rounding");
  }
  if (has(train::Arm::Kind::local) && has(train::Arm::Kind::sync) && run.ranks > 1) {
    const double sync = summarize(comparison, {train::Arm::Kind::sync, 0}).accuracy;
    const double local = summarize(comparison, {train::Arm::Kind::local, 0}).accuracy;
    const double points = 100.0 * (sync - local);
    const train::ShareSizes sizes =
        train::samples_per_norm({train::Arm::Kind::local, 0}, run.training.batch, run.ranks);
    text += text.empty() ? "Local" : "; local";
    text += " batch norm, over " + range_text(sizes) + " samples at a time, ended " + fixed(std::abs(points), 2) +
            " points of test accuracy " + (points >= 0 ? "lower" : "higher");
  }
  if (text.empty()) return "All arms have been trained.";
  if (run.ranks == 1) text += "; with one rank all arms are the same, try mpirun -n 4";
  return text + ".";
}

int run_compare(const Arguments& arguments, MPI_Comm comm) {
  const std::vector<train::Arm> arms = parse_arms(arguments.arms);
  const std::vector<std::uint64_t> seeds = parse_seeds(arguments.seeds);
  if (arguments.out.empty()) throw train::UsageError("--out is empty, wanted a folder");
  const train::DataSet data = train::load_data(arguments.data, comm);
  train::check_options(arguments.training, data);
  const train::RunDescription run{"compare", data.name, arguments.training, arms, seeds, size_of(comm)};
  const bool speaks = rank_of(comm) == 0;

  train::RunFolder folder(arguments.out, comm);
  if (speaks) {
    std::printf("%s\nnetwork %s, %lld epochs, global batch %lld, %lld %s\n", describe(data).c_str(),
                run.training.network.c_str(), static_cast<long long>(run.training.epochs),
                static_cast<long long>(run.training.batch), static_cast<long long>(run.ranks),
                run.ranks == 1 ? "rank" : "ranks");
    std::fflush(stdout);
  }
  train::Progress progress(arguments.progress_style());
  const auto observe = [&](const std::string& label, std::uint64_t seed) {
    progress.begin(seeds.size() > 1 ? label + ", seed " + std::to_string(seed) : label, arguments.training.epochs);
    return train::make_observer(label, seed, progress, folder);
  };
  const train::Comparison comparison = train::compare(data, {arguments.training, arms, seeds}, comm, observe);
  progress.end();

  if (speaks) {
    print_table(run, comparison);
    for (const train::SyncCheck& check : comparison.checks) {
      if (has_verdict(comparison, check)) print_check(check);
    }
    std::printf("%s\n", conclusion(run, comparison).c_str());
  }
  folder.write("summary.csv", train::summary_csv(run, comparison));
  folder.write("run.json", train::run_json(run, comparison));
  folder.finish();
  const bool has_failed = std::any_of(comparison.checks.begin(), comparison.checks.end(),
                                      [](const train::SyncCheck& check) { return !check.has_passed; });
  return has_failed || !diverged_arms(run, comparison).empty() ? kCheckFailed : kOk;
}

}  // namespace

CommandBody add_compare(CLI::App& tool) {
  CLI::App* command = tool.add_subcommand(
      "compare", "Trains the same network with batch norm over the full batch, over all ranks, and on each rank alone");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--arms", arguments->arms, "Some of single, sync, local, group:k")
      ->capture_default_str()
      ->type_name("LIST");
  add_training_options(*command, *arguments);
  command->add_option("--seeds", arguments->seeds, "How many trainings of each arm, or a list of seeds like 3,5")
      ->capture_default_str()
      ->type_name("N|LIST");
  command
      ->add_option("--out", arguments->out,
                   "Folder for metrics.jsonl, summary.csv and run.json; files of an earlier run are replaced")
      ->capture_default_str()
      ->type_name("DIR");
  command->footer(
      "Exit code 1 if sync does not train like single, or an arm diverges.\n\n"
      "Try:\n  mpirun -n 4 syncbn compare\n  mpirun -n 4 syncbn compare --data mnist/ --network mlp --seeds 3 --out "
      "mnist-compare");
  return [arguments] { return with_agreed_failures([&] { return run_compare(*arguments, MPI_COMM_WORLD); }); };
}

}  // namespace syncbn::cli
