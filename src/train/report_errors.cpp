// SPDX-License-Identifier: MIT
#include "report_errors.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "report_chart.hpp"
#include "report_parts.hpp"
#include "report_text.hpp"

namespace syncbn::train {

namespace {

/// Test error over epochs, in percent. The one of `single` is in all cases of its batch.
ChartSeries curve_of(const RunRecord& run, const std::string& arm, const Case& which) {
  const auto [batch, ranks] = which;
  std::map<Index, std::vector<double>> errors;
  for (const RecordedTraining& training : run.trainings) {
    const TrainingId& id = training.id;
    if (id.label != arm || id.batch != batch || (id.ranks != ranks && arm != "single")) continue;
    for (const RecordedEpoch& epoch : training.epochs) errors[epoch.epoch].push_back(100 * epoch.test_error);
  }
  ChartSeries series{arm_class(run, arm), {}};
  for (const auto& [epoch, values] : errors) {
    const Spread spread = spread_of(values);
    const std::string tip = arm + ", epoch " + std::to_string(epoch) + ": " + percent(spread.median / 100);
    if (spread.count > 0) {
      series.points.push_back({static_cast<double>(epoch), spread.median, spread.smallest, spread.largest, tip});
    }
  }
  return series;
}

bool has_points(const LineChart& chart) {
  return std::any_of(chart.series.begin(), chart.series.end(),
                     [](const ChartSeries& series) { return !series.points.empty(); });
}

std::string samples_title(const RunRecord& run, const Case& which) {
  const auto [batch, ranks] = which;
  for (const RecordedShare& share : run.shares) {
    if (share.batch != batch || share.ranks != ranks || share.arm == "single") continue;
    return samples_text(share.rank) + " per process" + ranks_suffix(run, ranks);
  }
  return "global batch " + std::to_string(batch) + ranks_suffix(run, ranks);
}

std::vector<double> errors_of(const ArmFigures& figures) {
  std::vector<double> errors;
  for (const RecordedTraining* training : figures.trainings) {
    const double error = final_error(*training);
    if (std::isfinite(error)) errors.push_back(100 * error);
  }
  return errors;
}

/// One batch: an arm a row, a dot a seed.
std::string final_errors_by_arm(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  RowChart chart;
  chart.id = "final";
  const std::string title = capitalized(end_words(run.epochs).title);
  chart.title = title + ", per arm";
  chart.description = "A dot is a seed, the bar their median.";
  chart.x_label = "test error, %";
  chart.marks = RowChart::Marks::dots;
  for (const ArmFigures& each : figures) {
    if (each.error.count == 0) continue;
    chart.rows.push_back({each.arm, arm_class(run, each.arm), 100 * each.error.median, 100 * each.error.smallest,
                          100 * each.error.largest, errors_of(each), percent(each.error.median)});
  }
  return chart.rows.empty() ? "" : figure_of(title, svg_of(chart), chart.description);
}

/// The errors of one arm over the samples of a process. `single`, which does not depend on the number of ranks, is at all of
/// them, to be held against.
ChartSeries errors_over_samples(const RunRecord& run, const std::vector<ArmFigures>& figures, const std::string& arm,
                                const std::vector<Index>& batches) {
  ChartSeries series{arm_class(run, arm), {}};
  for (const ArmFigures& each : figures) {
    const bool is_wanted = std::find(batches.begin(), batches.end(), each.batch) != batches.end();
    if (each.arm != arm || each.error.count == 0 || !is_wanted) continue;
    const bool is_repeated = arm == "single" && run.rank_counts.size() > 1;
    for (const Index count : is_repeated ? run.rank_counts : std::vector<Index>{each.ranks}) {
      const std::string place =
          arm == "single" ? "global batch " + std::to_string(each.batch) : samples_title(run, {each.batch, count});
      const std::string tip = arm + ", " + place + ": " + percent(each.error.median);
      series.points.push_back({samples_per_process(each.batch, count), 100 * each.error.median,
                               100 * each.error.smallest, 100 * each.error.largest, tip});
    }
  }
  std::sort(series.points.begin(), series.points.end(),
            [](const ChartPoint& a, const ChartPoint& b) { return a.x < b.x; });
  return series;
}

std::string description_of_final_errors(const RunRecord& run) {
  const std::string start = "Median over the seeds, the band is their range. ";
  if (run.rank_counts.size() < 2) return start + "All arms have the same global batches.";
  const std::string points =
      " A point is a number of ranks (" + list_text(run.rank_counts) + "); single does not depend on it.";
  return start +
         (run.batches.size() > 1 ? "A line is an arm with one global batch (" + list_text(run.batches) + ")."
                                 : "All have a global batch of " + std::to_string(run.batches.front()) + ".") +
         points;
}

/// Several batches or numbers of ranks: a line per arm over the samples of a process. With several of both a line per arm and
/// batch.
std::string final_errors_by_samples(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  LineChart chart;
  chart.id = "final";
  chart.title = capitalized(end_words(run.epochs).title) + " over samples per process";
  chart.description = description_of_final_errors(run);
  chart.x_label = "samples per process, n (logarithmic)";
  chart.y_label = "test error, %";
  chart.x_axis = LineChart::Axis::logarithmic;
  for (const std::string& arm : run.arms) {
    if (run.rank_counts.size() == 1) chart.series.push_back(errors_over_samples(run, figures, arm, run.batches));
    for (const Index batch : run.batches) {
      if (run.rank_counts.size() > 1) chart.series.push_back(errors_over_samples(run, figures, arm, {batch}));
    }
  }
  return has_points(chart) ? figure_of(chart.title, svg_of(chart), chart.description) : "";
}

std::string curves_of(const RunRecord& run, const Case& which) {
  const auto [batch, ranks] = which;
  LineChart chart;
  chart.id = "curve" + std::to_string(batch);
  if (run.rank_counts.size() > 1) chart.id.append("r").append(std::to_string(ranks));
  chart.title = "Test error over the epochs, " + samples_title(run, which);
  chart.description = "One line per arm: the median over the seeds; the band is their range.";
  chart.x_label = "epoch";
  chart.y_label = "test error, %";
  for (const std::string& arm : run.arms) chart.series.push_back(curve_of(run, arm, which));
  if (!has_points(chart)) return "";
  return figure_of(has_several_cases(run) ? "Test error, " + samples_title(run, which) : "Test error over the epochs",
                   svg_of(chart), chart.description);
}

}  // namespace

std::string error_curves_of(const RunRecord& run) {
  std::string figures;
  for (const Index batch : run.batches) {
    for (const Index ranks : run.rank_counts) figures += curves_of(run, {batch, ranks});
  }
  return figures;
}

std::string final_errors_of(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  return has_several_cases(run) ? final_errors_by_samples(run, figures) : final_errors_by_arm(run, figures);
}

}  // namespace syncbn::train
