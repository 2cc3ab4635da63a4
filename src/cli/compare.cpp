// SPDX-License-Identifier: MIT
// syncbn compare: the same training with batch norm over the full batch, over all ranks, and on each rank alone.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <mpi.h>
#include <unistd.h>

#include "agree.hpp"
#include "command.hpp"
#include "train/collectives.hpp"
#include "train/comparison_json.hpp"
#include "train/load_data.hpp"
#include "train/report_page.hpp"
#include "train/report_parts.hpp"
#include "train/report_text.hpp"
#include "train/stop_signals.hpp"
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
    training.evaluation.in_train_mode = true;
    out = "syncbn-compare";
  }
  std::string arms = "single,sync,local";
  std::string batches;
  std::string ranks;
  std::string seeds = "3";
  std::string json;
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

/// "1,2,4"; without --ranks all ranks.
std::vector<Index> parse_ranks(const Arguments& arguments, Index size) {
  if (arguments.ranks.empty()) return {size};
  std::vector<Index> counts;
  for (const std::string& part : split(arguments.ranks)) {
    const std::uint64_t count = parse_seed("--ranks", part);
    if (count < 1 || count > static_cast<std::uint64_t>(size)) {
      throw train::UsageError("--ranks has " + part + ", wanted 1 to " + std::to_string(size) +
                              ", the number of ranks that were started");
    }
    counts.push_back(static_cast<Index>(count));
    if (std::count(counts.begin(), counts.end(), counts.back()) > 1) {
      throw train::UsageError("--ranks names " + part + " twice");
    }
  }
  if (counts.empty()) throw train::UsageError("--ranks has no number, wanted numbers of ranks like 1,2,4");
  return counts;
}

/// "3" is 1, 2, 3; "3,5" is 3 and 5, and "3," is 3 alone.
std::vector<std::uint64_t> parse_seeds(const std::string& text) {
  constexpr std::uint64_t kMaxSeeds = 1000;
  std::vector<std::uint64_t> seeds;
  for (const std::string& part : split(text)) {
    seeds.push_back(parse_seed("--seeds", part));
    if (std::count(seeds.begin(), seeds.end(), seeds.back()) > 1) {
      throw train::UsageError("--seeds names " + part + " twice");
    }
  }
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

/// The largest difference of sync's weights over the seeds; empty where there is none to be told.
std::string difference_text(const train::RunRecord& run, const train::ArmFigures& figures) {
  std::string text;
  double largest = 0;
  for (const train::RecordedCheck& check : run.checks) {
    if (figures.arm != "sync" || check.ranks != figures.ranks || check.batch != figures.batch) continue;
    largest = check.weights >= largest ? check.weights : largest;
    std::array<char, 32> number{};
    std::snprintf(number.data(), number.size(), "%.2g", largest);
    text = number.data();
  }
  return text;
}

void print_table(const train::RunRecord& run, const std::vector<train::ArmFigures>& figures) {
  const bool has_ranks = run.rank_counts.size() > 1;
  const bool has_checks = has_ranks && !run.checks.empty();
  const std::string minus = has_checks ? "sync - " + run.checks.front().from.label : "";
  const auto print_row = [has_ranks, has_checks](const std::string& arm, const std::string& ranks,
                                                 const std::array<std::string, 5>& cells, const std::string& difference,
                                                 const std::string& range) {
    std::printf("%-10s", arm.c_str());
    if (has_ranks) std::printf(" %5s", ranks.c_str());
    std::printf(" %14s %16s %11s %11s %9s", cells[0].c_str(), cells[1].c_str(), cells[2].c_str(), cells[3].c_str(),
                cells[4].c_str());
    if (has_checks) std::printf(" %13s", difference.c_str());
    std::printf("  %s\n", range.c_str());
  };
  std::printf("\n");
  print_row("arm", "ranks", {"samples a rank", "normalized over", "train loss", "test error", "a step"}, minus,
            run.seeds.size() > 1 ? "errors over the seeds" : "");
  for (std::size_t i = 0; i < figures.size(); ++i) {
    const train::ArmFigures& each = figures[i];
    if (i > 0 && train::case_of(run, each) != train::case_of(run, figures[i - 1])) std::printf("\n");
    const std::string loss = each.diverged > 0 ? "diverged" : train::fixed(each.train_loss.median, 4);
    print_row(each.arm, std::to_string(each.ranks),
              {range_text(each.share.rank), range_text(each.share.norm), loss, train::percent(each.error.median),
               train::duration(each.step_seconds.median)},
              difference_text(run, each), range_text(each.error));
  }
  std::printf("\n");
}

/// Nothing can be said of a training that has no end to compare with.
bool has_verdict(const train::Comparison& comparison, const train::SyncCheck& check) {
  return std::none_of(comparison.runs.begin(), comparison.runs.end(),
                      [&](const train::ArmRun& run) { return run.id() == check.from && run.result.diverged; });
}

void print_check(const train::SyncCheck& check, bool has_ranks) {
  const bool is_from_single = check.from.label == "single";
  const std::string base = is_from_single ? "single" : "that on " + train::counted(check.from.ranks, "rank");
  std::printf("seed %llu, batch %lld%s: ", static_cast<unsigned long long>(check.seed),
              static_cast<long long>(check.batch),
              has_ranks ? (", " + train::counted(check.ranks, "rank")).c_str() : "");
  if (check.sync.same_bits) {
    std::printf("sync and %s end with the same bits in every weight: passed\n", base.c_str());
    return;
  }
  std::printf("sync from %s: weights %.2g, loss %.2g (first %lld steps %.2g)", base.c_str(), check.sync.weights,
              check.sync.loss, static_cast<long long>(train::kEarlySteps), check.sync.early_loss);
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
  const std::vector<Index>& counts = run.options.ranks;
  const bool is_all = counts.size() == 1 && counts.front() == run.ranks;
  const std::string ranks = (is_all ? "" : train::list_text(counts) + " of ") + train::counted(run.ranks, "rank");
  std::printf("%s\nnetwork %s, %s, global batch %s%s, %s\n", describe(data).c_str(), training.network.c_str(),
              train::counted(training.epochs, "epoch").c_str(), batches.c_str(),
              shard_clause(training.sharding).c_str(), ranks.c_str());
  std::fflush(stdout);
}

/// What was asked for and has no effect: a sentence each.
std::vector<std::string> warnings_of(const train::ComparisonOptions& options) {
  std::vector<std::string> warnings;
  const Index most = *std::max_element(options.ranks.begin(), options.ranks.end());
  for (const train::Arm& arm : options.arms) {
    if (arm.kind != train::Arm::Kind::group || arm.group_size <= most) continue;
    warnings.push_back("arm " + arm.name() + " is the same as sync: no more than " + train::counted(most, "rank") +
                       (most == 1 ? " trains" : " train"));
  }
  const std::string unreached = train::unreached_milestones(options.training);
  if (!unreached.empty()) warnings.push_back(unreached);
  return warnings;
}

/// Better now than after hours of training.
void check_can_write(const std::filesystem::path& file) {
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored)) throw train::DataError("--json " + file.string() + " is a folder");
  if (!std::filesystem::is_directory(folder, ignored)) {
    throw train::DataError("--json " + file.string() + ": there is no folder " + folder.string());
  }
  if (::access(folder.c_str(), W_OK) != 0) throw train::DataError("--json " + file.string() + " cannot be written");
}

/// Rank 0 prints the outcome and writes the page.
void report(const train::RunDescription& run, const train::Comparison& comparison, const std::string& run_json,
            train::RunFolder& folder, const Arguments& arguments) {
  std::istringstream metrics(folder.recorded());
  const train::RunRecord record = train::parse_run(arguments.out, run_json, metrics);
  folder.write("report.html", train::report_html(record));

  const std::vector<train::ArmFigures> figures = train::figures_of(record);
  const train::Verdict verdict = train::verdict_of(record, figures);
  if (!arguments.json.empty()) {
    train::write_whole(arguments.json, train::comparison_json(run_json, record, figures, verdict));
  }
  print_table(record, figures);
  const bool has_ranks = run.options.ranks.size() > 1;
  for (const train::SyncCheck& check : comparison.checks) {
    const bool has_several = run.options.batches.size() > 1 || has_ranks;
    const bool is_one_of_many = has_several && check.sync.same_bits;  // the verdict counts these
    if (has_verdict(comparison, check) && !is_one_of_many) print_check(check, has_ranks);
  }
  if (!verdict.unfinished.empty()) std::printf("%s\n", verdict.unfinished.c_str());
  std::printf("%s\n", verdict.headline.c_str());
  for (const std::string& sentence : verdict.details) std::printf("%s\n", sentence.c_str());
}

/// Shows what happens to a person, and writes it down.
train::ComparisonObserver make_observer(const train::ComparisonOptions& options, train::Progress& progress,
                                        train::RunFolder& folder) {
  train::ComparisonObserver observer;
  observer.on_begin = [&options, &progress, &folder](const train::TrainingId& id) {
    std::string title = id.label;
    if (options.ranks.size() > 1) title += ", " + train::counted(id.ranks, "rank");
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
                                         parse_seeds(arguments.seeds), parse_ranks(arguments, size_of(comm))};
  if (arguments.out.empty()) throw train::UsageError("--out is empty, wanted a folder");
  const train::DataSet data = train::load_data(arguments.data, comm);
  for (const Index batch : options.batches) {
    train::check_options(train::training_of(options, batch, options.seeds.front()), data);
  }
  const train::RunDescription run = train::describe_run("compare", command_line, data, options, comm);
  const bool speaks = rank_of(comm) == 0;
  if (!arguments.json.empty()) train::on_first_rank(comm, [&] { check_can_write(arguments.json); });

  train::RunFolder folder(arguments.out, comm);
  folder.write("run.json", train::run_json(run));
  if (speaks) {
    print_head(data, run);
    for (const std::string& warning : warnings_of(options)) {
      std::fprintf(stderr, "syncbn compare: %s\n", warning.c_str());
    }
  }
  train::Progress progress(arguments.progress_style());
  const train::StopSignals signals;
  const train::Comparison comparison = train::compare(data, options, comm, make_observer(options, progress, folder),
                                                      [&signals] { return signals.has_come(); });
  progress.end();

  const std::string run_json = train::run_json(run, comparison);
  folder.write("summary.csv", train::summary_csv(comparison));
  folder.write("run.json", run_json);
  train::on_first_rank(comm, [&] { report(run, comparison, run_json, folder, arguments); });
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
  command
      ->add_option(
          "--ranks", arguments->ranks,
          "Several numbers of ranks, like 1,2,4,8: the whole comparison on the first so many ranks each, with the "
          "same global batch; single, which has one process always, is trained once, and local on 1 rank is the "
          "same as single (default: all ranks)")
      ->type_name("LIST");
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
  command->add_option("--json", arguments->json, "Also write all that the page says to this file, as one JSON object")
      ->type_name("FILE");
  command->footer(
      "Exit code 1 if sync does not train like single, on each number of ranks, or an arm diverges. SIGTERM and "
      "SIGINT end the comparison at the end of a step, with a page of what is complete.\n\n"
      "Try:\n  mpirun -n 4 syncbn compare\n"
      "  mpirun -n 8 syncbn compare --ranks 1,2,4,8 --batch 64\n"
      "  mpirun -n 4 syncbn compare --data mnist/ --network mlp --seeds 3 --out mnist-compare");
  return [arguments, command] {
    return with_agreed_failures([&] { return run_compare(*arguments, command_line_of(*command), MPI_COMM_WORLD); });
  };
}

}  // namespace syncbn::cli
