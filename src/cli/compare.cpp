// SPDX-License-Identifier: MIT
// syncbn compare: the same training with batch norm over the full batch, over all ranks, and on each rank alone.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>

#include <mpi.h>

#include "agree.hpp"
#include "command.hpp"
#include "train/collectives.hpp"
#include "train/load_data.hpp"
#include "train/report_page.hpp"
#include "train/report_text.hpp"
#include "training_arguments.hpp"
#include "usage.hpp"

namespace syncbn::cli {

namespace {

struct Arguments : TrainingArguments {
  Arguments() {
    training.network = "mlp";  // one value per sample and channel: here small batches hurt most
    training.epochs = 8;
    training.batch = 16;
    training.evaluation.compares_ranks = true;
    out = "syncbn-compare";
  }
  std::string arms = "single,sync,local";
  std::string batches;
  std::string seeds = "3";
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

/// "64,32,16"; without --batches what --batch says.
std::vector<Index> parse_batches(const Arguments& arguments) {
  if (arguments.batches.empty()) return {arguments.training.batch};
  std::vector<Index> batches;
  for (const std::string& part : split(arguments.batches)) {
    const std::uint64_t batch = parse_seed("--batches", part);
    if (batch > INT64_MAX) throw train::UsageError("--batches has " + part + ", which is too large");
    batches.push_back(static_cast<Index>(batch));
    if (std::count(batches.begin(), batches.end(), batches.back()) > 1) {
      throw train::UsageError("--batches names " + part + " twice");
    }
  }
  if (batches.empty()) throw train::UsageError("--batches has no number, wanted global batches like 64,32,16");
  return batches;
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

std::string range_text(const train::ShareSizes& sizes) {
  const std::string smallest = std::to_string(sizes.smallest);
  return sizes.smallest == sizes.largest ? smallest : smallest + "-" + std::to_string(sizes.largest);
}

std::string range_text(const train::Spread& spread) {
  return spread.count > 1 ? train::percent(spread.smallest) + " to " + train::percent(spread.largest) : "";
}

void print_table(const train::RunRecord& run, const std::vector<train::ArmFigures>& figures) {
  std::printf("\n%-10s %14s %16s %11s %11s %9s  %s\n", "arm", "samples a rank", "normalized over", "train loss",
              "test error", "a step", run.seeds.size() > 1 ? "errors over the seeds" : "");
  Index batch = run.batches.front();
  for (const train::ArmFigures& each : figures) {
    if (each.batch != batch) std::printf("\n");
    batch = each.batch;
    const std::string loss = each.diverged > 0 ? "diverged" : train::fixed(each.train_loss.median, 4);
    std::printf("%-10s %14s %16s %11s %11s %9s  %s\n", each.arm.c_str(), range_text(each.share.rank).c_str(),
                range_text(each.share.norm).c_str(), loss.c_str(), train::percent(each.error.median).c_str(),
                train::duration(each.step_seconds.median).c_str(), range_text(each.error).c_str());
  }
  std::printf("\n");
}

/// Nothing can be said of a training that has no end to compare with.
bool has_verdict(const train::Comparison& comparison, const train::SyncCheck& check) {
  return std::none_of(comparison.runs.begin(), comparison.runs.end(), [&](const train::ArmRun& run) {
    return run.seed == check.seed && run.batch == check.batch && run.arm.kind == train::Arm::Kind::single &&
           run.result.diverged;
  });
}

void print_check(const train::SyncCheck& check) {
  std::printf("seed %llu, batch %lld: ", static_cast<unsigned long long>(check.seed),
              static_cast<long long>(check.batch));
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

void print_head(const train::DataSet& data, const train::RunDescription& run) {
  std::string batches;
  for (const Index batch : run.options.batches) {
    batches += (batches.empty() ? "" : ", ") + std::to_string(batch);
  }
  const train::TrainingOptions& training = run.options.training;
  std::printf("%s\nnetwork %s, %lld epochs, global batch %s%s, %lld %s\n", describe(data).c_str(),
              training.network.c_str(), static_cast<long long>(training.epochs), batches.c_str(),
              shard_clause(training.sharding).c_str(), static_cast<long long>(run.ranks),
              run.ranks == 1 ? "rank" : "ranks");
  std::fflush(stdout);
}

/// Rank 0 prints the outcome and writes the page.
void report(const train::RunDescription& run, const train::Comparison& comparison, const std::string& run_json,
            train::RunFolder& folder, const std::string& out) {
  std::istringstream metrics(folder.recorded());
  const train::RunRecord record = train::parse_run(out, run_json, metrics);
  folder.write("report.html", train::report_html(record));

  const std::vector<train::ArmFigures> figures = train::figures_of(record);
  print_table(record, figures);
  for (const train::SyncCheck& check : comparison.checks) {
    const bool is_one_of_many = run.options.batches.size() > 1 && check.sync.same_bits;  // the verdict counts these
    if (has_verdict(comparison, check) && !is_one_of_many) print_check(check);
  }
  const train::Verdict verdict = train::verdict_of(record, figures);
  std::printf("%s\n", verdict.headline.c_str());
  for (const std::string& sentence : verdict.details) std::printf("%s\n", sentence.c_str());
}

/// Shows what happens to a person, and writes it down.
train::ComparisonObserver make_observer(const train::ComparisonOptions& options, train::Progress& progress,
                                        train::RunFolder& folder) {
  train::ComparisonObserver observer;
  observer.on_begin = [&options, &progress, &folder](const train::TrainingId& id) {
    std::string title = id.label;
    if (options.batches.size() > 1) title += ", batch " + std::to_string(id.batch);
    if (options.seeds.size() > 1) title += ", seed " + std::to_string(id.seed);
    progress.begin(title, options.training.epochs);
    return train::make_observer(id, progress, folder);
  };
  observer.on_end = [&folder](const train::ArmRun& run) { folder.record(train::end_line(run.id(), run.result)); };
  observer.on_check = [&folder](const train::SyncCheck& check) { folder.record(train::check_line(check)); };
  return observer;
}

/// Whether every sync was single, and all trainings came to their end.
bool is_good(const train::Comparison& comparison) {
  return std::all_of(comparison.checks.begin(), comparison.checks.end(),
                     [](const train::SyncCheck& check) { return check.has_passed; }) &&
         std::none_of(comparison.runs.begin(), comparison.runs.end(),
                      [](const train::ArmRun& run) { return run.result.diverged; });
}

int run_compare(const Arguments& arguments, const std::string& command_line, MPI_Comm comm) {
  const train::ComparisonOptions options{arguments.training, parse_arms(arguments.arms), parse_batches(arguments),
                                         parse_seeds(arguments.seeds)};
  if (arguments.out.empty()) throw train::UsageError("--out is empty, wanted a folder");
  const train::DataSet data = train::load_data(arguments.data, comm);
  for (const Index batch : options.batches) {
    train::check_options(train::training_of(options, batch, options.seeds.front()), data);
  }
  const train::RunDescription run = train::describe_run("compare", command_line, data, options, comm);
  const bool speaks = rank_of(comm) == 0;

  train::RunFolder folder(arguments.out, comm);
  folder.write("run.json", train::run_json(run));
  if (speaks) print_head(data, run);
  train::Progress progress(arguments.progress_style());
  const train::Comparison comparison = train::compare(data, options, comm, make_observer(options, progress, folder));
  progress.end();

  const std::string run_json = train::run_json(run, comparison);
  folder.write("summary.csv", train::summary_csv(run, comparison));
  folder.write("run.json", run_json);
  train::on_first_rank(comm, [&] { report(run, comparison, run_json, folder, arguments.out); });
  folder.finish();
  if (speaks) std::printf("written  %s\n", (std::filesystem::path(arguments.out) / "report.html").c_str());
  return is_good(comparison) ? kOk : kCheckFailed;
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
  command
      ->add_option(
          "--batches", arguments->batches,
          "Several global batches, like 64,32,16: the whole comparison with each; --lr is for the first and goes "
          "with the batch")
      ->type_name("LIST")
      ->excludes(command->get_option("--batch"));
  command->add_flag(
      "--precise-bn", arguments->training.evaluation.is_precise,
      "Also evaluate all arms with exact statistics: of one pass over the training data (Wu & Johnson 2021)");
  command->add_option("--seeds", arguments->seeds, "How many trainings of each arm, or a list of seeds like 3,5")
      ->capture_default_str()
      ->type_name("N|LIST");
  command
      ->add_option(
          "--out", arguments->out,
          "Folder for report.html, metrics.jsonl, summary.csv and run.json; files of an earlier run are replaced")
      ->capture_default_str()
      ->type_name("DIR");
  command->footer(
      "Exit code 1 if sync does not train like single, or an arm diverges.\n\n"
      "Try:\n  mpirun -n 4 syncbn compare\n  mpirun -n 4 syncbn compare --data mnist/ --network mlp --seeds 3 --out "
      "mnist-compare");
  return [arguments, command] {
    return with_agreed_failures([&] { return run_compare(*arguments, command_line_of(*command), MPI_COMM_WORLD); });
  };
}

}  // namespace syncbn::cli
