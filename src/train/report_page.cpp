// SPDX-License-Identifier: MIT
#include "report_page.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "report_chart.hpp"
#include "report_costs.hpp"
#include "report_drift.hpp"
#include "report_errors.hpp"
#include "report_parts.hpp"
#include "report_text.hpp"

namespace syncbn::train {

namespace {

/// A sentence whose numbers stay with their units.
std::string prose(const std::string& sentence) {
  std::string text = escape(sentence);
  for (const char* unit : {" %", " ms", " points"}) {
    for (std::size_t found = text.find(unit); found != std::string::npos; found = text.find(unit, found)) {
      text.replace(found, 1, "\xC2\xA0");
    }
  }
  return text;
}

/// What the arms mean, in few words.
std::string arm_meaning(const std::string& arm) {
  if (arm == "single") return "one process has the full batch";
  if (arm == "sync") return "statistics over all processes";
  if (arm == "local") return "statistics of each process's own samples";
  return "statistics over groups of " + arm.substr(arm.find(':') + 1) + " processes";
}

std::string legend_of(const RunRecord& run) {
  std::string items;
  for (const std::string& arm : run.arms) {
    items += tag(
        "li", swatch(arm_class(run, arm)) + "<span><b>" + escape(arm) + "</b> " + escape(arm_meaning(arm)) + "</span>");
  }
  return tag("ul", "\n" + items, "class=\"legend\"");
}

std::string header_of(const RunRecord& run, const Verdict& verdict) {
  std::string details;
  for (const std::string& sentence : verdict.details) details += tag("li", prose(sentence));
  const std::string unfinished =
      verdict.unfinished.empty()
          ? ""
          : tag("p", prose(verdict.unfinished) + " What follows is of what is there.", "class=\"notice\"");
  const std::string day = run.started.substr(0, run.started.find('T'));
  return tag(
      "header",
      "\n" +
          tag("p", "syncbn " + escape(run.command) + ", " + escape(run.data) + (day.empty() ? "" : ", " + escape(day)),
              "class=\"kicker\"") +
          tag("h1", prose(verdict.headline)) + unfinished +
          (details.empty() ? "" : tag("ul", "\n" + details, "class=\"details\"")));
}

/// "23.2 %" over "22.9 % to 23.6 %".
std::string spread_cell(const Spread& spread, const std::function<std::string(double)>& text) {
  if (spread.count == 0) return "-";
  const std::string range =
      spread.count > 1 ? "<small>" + prose(text(spread.smallest) + " to " + text(spread.largest)) + "</small>" : "";
  return prose(text(spread.median)) + range;
}

std::string state_cell(const ArmFigures& figures) {
  std::string text = std::to_string(figures.ended);
  if (figures.begun > figures.ended)
    text += "<small>" + std::to_string(figures.begun - figures.ended) + " not complete</small>";
  if (figures.diverged > 0) text += "<small>" + std::to_string(figures.diverged) + " diverged</small>";
  return text;
}

std::string table_of(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  const std::string rows = rows_of(run, figures, [](const ArmFigures& each) -> std::vector<std::string> {
    return {spread_cell(each.error, percent),
            sizes_text(each.share.rank),
            sizes_text(each.share.norm),
            spread_cell(each.train_loss, [](double loss) { return fixed(loss, 4); }),
            spread_cell(each.step_seconds, duration),
            state_cell(each)};
  });
  return tag(
      "section",
      tag("h2", "Summary") +
          scrolling_table("Summary",
                          titles_of(run, {"test error", "samples per process", "normalized over", "train loss",
                                          "time per step", "trainings"}),
                          rows) +
          tag("p",
              "Test error and train loss: " + end_words(run.epochs).meaning +
                  "; of these the median over the seeds, and below it their range. Time per step: median, in training "
                  "alone.",
              "class=\"note\""));
}

/// The test errors of one training with other statistics than rank 0's.
std::string statistics_of(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  const bool has_any = std::any_of(figures.begin(), figures.end(), [](const ArmFigures& each) {
    return each.mean_statistics_error.count > 0 || each.precise_error.count > 0 || each.train_mode_error.count > 0;
  });
  if (!has_any) return "";
  const std::string rows = rows_of(run, figures, [](const ArmFigures& each) -> std::vector<std::string> {
    return {sizes_text(each.share.norm),
            spread_cell(each.error, percent),
            spread_cell(each.mean_statistics_error, percent),
            spread_cell(each.best_rank_error, percent),
            spread_cell(each.worst_rank_error, percent),
            spread_cell(each.precise_error, percent),
            spread_cell(each.train_mode_error, percent)};
  });
  return tag(
      "section",
      tag("h2", "Test error by the statistics that evaluation uses") +
          scrolling_table("Test error by statistics",
                          titles_of(run, {"normalized over", "rank 0's running statistics", "mean of the ranks'",
                                          "best rank with its own", "worst rank with its own",
                                          "exact, of the training data", "the test batches' own"}),
                          rows) +
          tag("p",
              "The same weights, in the last epochs as above. Where all processes share statistics there is "
              "nothing to choose from. Exact statistics (<code>--precise-bn</code>) are those of one pass over "
              "the training data, batches normalized as in training (Wu &amp; Johnson 2021, arXiv:2105.07576): "
              "what they mend is the fault of the running averages, what they leave is the fault of training. "
              "The last column is training mode: the test images in shuffled batches, each normalized by its own "
              "statistics over as many samples as in training. How far it lies from the first is the gap between "
              "training and evaluation mode.",
              "class=\"note\""));
}

std::string times_of(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  RowChart chart;
  chart.id = "time";
  chart.title = "Time per step";
  chart.description = has_several_cases(run)
                          ? "Median over the seeds, the line is their range; n samples per process where all have some."
                          : "Median over the seeds, the line is their range.";
  chart.x_label = "milliseconds per step";
  for (const ArmFigures& each : figures) {
    const Spread& time = each.step_seconds;
    if (time.count == 0) continue;
    chart.rows.push_back({arm_label(run, each),
                          arm_class(run, each.arm),
                          1e3 * time.median,
                          1e3 * time.smallest,
                          1e3 * time.largest,
                          {},
                          duration(time.median)});
  }
  return chart.rows.empty() ? "" : figure_of(chart.title, svg_of(chart), chart.description + cores_caution(run));
}

/// Figures of little height, in one column.
std::string stacked(const std::string& figures) {
  return figures.empty() ? "" : tag("div", "\n" + figures, "class=\"stack\"");
}

std::string charts_of(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  const std::string curves = error_curves_of(run);
  const std::string times = times_of(run, figures);
  const std::string charts = has_several_cases(run) ? final_errors_of(run, figures) + curves + times
                                                    : curves + stacked(final_errors_of(run, figures) + times);
  if (charts.empty()) return "";
  return tag("section", tag("h2", "Charts") + legend_of(run) + tag("div", "\n" + charts, "class=\"charts\""));
}

std::string hash_of_training(const RunRecord& run, const TrainingId& id) {
  for (const RecordedTraining& training : run.trainings) {
    if (training.id == id) return training.weights_hash;
  }
  return "";
}

/// A difference that is 0 says so without digits.
std::string difference_text(double difference) {
  if (difference == 0) return "0";
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.2g", difference);
  return std::isnan(difference) ? "-" : text.data();
}

/// "Sync minus single = 0 on 1, 2, 4 and 8 ranks." Empty where there is one number of ranks, or some difference.
std::string zero_sentence(const RunRecord& run, const std::string& minus) {
  std::vector<Index> ranks;
  for (const RecordedCheck& check : run.checks) {
    if (!check.same_bits) return "";
    if (std::find(ranks.begin(), ranks.end(), check.ranks) == ranks.end()) ranks.push_back(check.ranks);
  }
  if (run.rank_counts.size() < 2) return "";
  return " " + minus + " = 0 on " + list_text(ranks) + (ranks.back() == 1 ? " rank" : " ranks") +
         ", in every weight and loss.";
}

std::string checks_of(const RunRecord& run) {
  if (run.checks.empty()) return "";
  const bool has_ranks = run.rank_counts.size() > 1;
  const TrainingId& from = run.checks.front().from;
  const bool is_from_single = from.label == "single";
  const std::string base = is_from_single ? "single" : "sync on " + counted(from.ranks, "rank");
  std::string rows;
  for (const RecordedCheck& check : run.checks) {
    std::string cells = "<th scope=\"row\">" + std::to_string(check.seed) + "</th>";
    if (has_ranks) cells += "<td>" + std::to_string(check.ranks) + "</td>";
    const TrainingId sync{"sync", check.batch, check.seed, check.ranks};
    for (const std::string& cell :
         {std::to_string(check.batch), difference_text(check.weights), difference_text(check.loss),
          std::string(check.same_bits    ? "same bits"
                      : check.has_passed ? "same up to rounding"
                                         : "FAILED"),
          tag("code", escape(hash_of_training(run, sync))), tag("code", escape(hash_of_training(run, check.from)))}) {
      cells += "<td>" + cell + "</td>";
    }
    rows += tag("tr", cells);
  }
  std::vector<std::string> titles{"seed"};
  if (has_ranks) titles.push_back("ranks");
  for (const std::string& title :
       {std::string("global batch"), "weights: max |sync - " + base + "|",
        "losses of all steps: max |sync - " + base + "|", std::string("verdict"), std::string("hash of sync's weights"),
        is_from_single ? std::string("of single's") : "on " + counted(from.ranks, "rank")}) {
    titles.push_back(title);
  }
  const std::string minus = "Sync minus " + base;
  const std::string must = is_from_single
                               ? "synchronized training must be the training of one process that has the full batch."
                               : "synchronized training must be the same on any number of ranks.";
  return tag("section", tag("h2", escape(minus)) +
                            tag("p", "The same start, the same batches: " + must +
                                         (has_ranks ? escape(zero_sentence(run, minus)) : "") +
                                         " Differences at the end of training:") +
                            scrolling_table(minus, titles, rows));
}

std::string facts_of(const RunRecord& run) {
  std::string list;
  for (const auto& [name, value] : run.facts) {
    const std::string text = name == "Command" ? tag("code", escape(value)) : escape(value);
    list += tag("dt", escape(name)) + tag("dd", text);
  }
  return tag("section", tag("h2", "How the run was made") + tag("dl", "\n" + list) +
                            tag("p",
                                "The numbers are in metrics.jsonl, run.json and summary.csv beside this page; "
                                "<code>syncbn report</code> makes the page from the first two.",
                                "class=\"note\""));
}

}  // namespace

std::string report_html(const RunRecord& run) {
  const std::vector<ArmFigures> figures = figures_of(run);
  const Verdict verdict = verdict_of(run, figures);
  return "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n" +
         tag("title", "syncbn " + escape(run.command) + ": " + escape(run.data)) + tag("style", kReportStyle) +
         "</head>\n<body>\n<main>\n" + header_of(run, verdict) + table_of(run, figures) + charts_of(run, figures) +
         costs_of(run, figures) + drift_of(run) + statistics_of(run, figures) + checks_of(run) + facts_of(run) +
         "</main>\n</body>\n</html>\n";
}

}  // namespace syncbn::train
