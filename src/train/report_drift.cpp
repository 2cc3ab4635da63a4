// SPDX-License-Identifier: MIT
#include "report_drift.hpp"

#include <algorithm>
#include <cmath>

#include "report_chart.hpp"
#include "report_parts.hpp"
#include "report_text.hpp"

namespace syncbn::train {

namespace {

/// The first seed's that has something to show; nullptr if there is none.
const RecordedTraining* training_to_show(const RunRecord& run, Index ranks, Index batch) {
  const auto found = std::find_if(run.trainings.begin(), run.trainings.end(), [&](const RecordedTraining& training) {
    return training.id.ranks == ranks && training.id.batch == batch && !training.drifts.empty();
  });
  return found == run.trainings.end() ? nullptr : &*found;
}

/// One layer over the steps.
struct LayerHistory {
  std::string layer;
  std::vector<double> drifts;
  Spread spread;
  double first = kUnknown;
  double last = kUnknown;
  Index step_of_largest = 0;
};

LayerHistory history_of(const std::vector<RecordedDrift>& steps, std::size_t layer) {
  LayerHistory history;
  history.layer = steps.front().layers[layer];
  double largest = -1;
  for (const RecordedDrift& step : steps) {
    const double drift = layer < step.mean_drifts.size() ? step.mean_drifts[layer] : kUnknown;
    history.drifts.push_back(drift);
    if (std::isnan(drift)) continue;
    if (std::isnan(history.first)) history.first = drift;
    history.last = drift;
    if (drift > largest) history.step_of_largest = step.step;
    largest = std::max(largest, drift);
  }
  history.spread = spread_of(history.drifts);
  return history;
}

/// At most kMostColumns of them, evenly.
std::vector<RecordedDrift> thinned(const std::vector<RecordedDrift>& steps) {
  constexpr std::size_t kMostColumns = 400;
  const std::size_t stride = (steps.size() + kMostColumns - 1) / kMostColumns;
  std::vector<RecordedDrift> kept;
  for (std::size_t i = 0; i < steps.size(); i += stride) kept.push_back(steps[i]);
  return kept;
}

std::vector<LayerHistory> histories_of(const std::vector<RecordedDrift>& steps) {
  std::vector<LayerHistory> histories;
  for (std::size_t layer = 0; layer < steps.front().layers.size(); ++layer) {
    histories.push_back(history_of(steps, layer));
  }
  return histories;
}

std::string map_of(const RunRecord& run, const RecordedTraining& training, const std::vector<RecordedDrift>& steps,
                   const std::vector<LayerHistory>& histories) {
  HeatMap map;
  map.id = "drift" + std::to_string(training.id.batch);
  if (run.rank_counts.size() > 1) map.id.append("r").append(std::to_string(training.id.ranks));
  map.title = "Drift by layer and step";
  if (run.batches.size() > 1) map.title += ", global batch " + std::to_string(training.id.batch);
  map.title += ranks_suffix(run, training.id.ranks);
  map.description = "Sync, " + counted(training.id.ranks, "rank") + ", seed " + std::to_string(training.id.seed) +
                    "; the first layer is on top.";
  map.x_label = "step";
  for (const RecordedDrift& step : steps) map.columns.push_back(static_cast<double>(step.step));
  for (const LayerHistory& history : histories) {
    map.rows.push_back({history.layer, history.drifts,
                        history.layer + ": median " + fixed(history.spread.median, 2) + ", largest " +
                            fixed(history.spread.largest, 2) + " at step " + std::to_string(history.step_of_largest)});
  }
  return figure_of(map.title, svg_of(map), map.description);
}

std::string table_of(const std::vector<LayerHistory>& histories) {
  std::string rows;
  for (const LayerHistory& history : histories) {
    std::string row = "<th scope=\"row\">" + escape(history.layer) + "</th>";
    for (const double value : {history.first, history.spread.median, history.spread.largest, history.last}) {
      row += "<td>" + fixed(value, 2) + "</td>";
    }
    rows += tag("tr", row);
  }
  return scrolling_table("Drift by layer", {"layer", "at the start", "median", "largest", "at the end"}, rows);
}

std::string legend() {
  std::string items;
  for (std::size_t heat = 0; heat <= kHeatLimits.size(); ++heat) {
    const std::string words = heat == 0 ? "under " + number_text(kHeatLimits[0])
                              : heat == kHeatLimits.size()
                                  ? number_text(kHeatLimits.back()) + " or more"
                                  : number_text(kHeatLimits[heat - 1]) + " to " + number_text(kHeatLimits[heat]);
    items += tag("li", "<span class=\"patch heat" + std::to_string(heat) + "\"></span><span>" + words + "</span>");
  }
  return tag("ul", items, "class=\"legend\"");
}

}  // namespace

std::string drift_of(const RunRecord& run) {
  std::string maps;
  for (const Index batch : run.batches) {
    for (const Index ranks : run.rank_counts) {
      const RecordedTraining* training = training_to_show(run, ranks, batch);
      if (!training) continue;
      const std::vector<RecordedDrift> steps = thinned(training->drifts);
      const std::vector<LayerHistory> histories = histories_of(steps);
      maps += tag("div", map_of(run, *training, steps, histories) + table_of(histories), "class=\"stack\"");
    }
  }
  if (maps.empty()) return "";
  return tag("section",
             tag("h2", "How far local statistics would have been off") +
                 tag("p",
                     "How far local batch norm would have shifted each layer's output, in standard "
                     "deviations: the distance of a rank's own samples' mean from the whole batch's, root mean square "
                     "over the ranks and the layer's channels. Under 0.05 local batch norm would have done nearly the "
                     "same; at 1 outputs "
                     "would have "
                     "lain a whole standard deviation from where they belong.") +
                 legend() + tag("div", maps, "class=\"charts\"") +
                 tag("p",
                     "Taken while training in arm sync, at most 200 steps, and never for more than 1 % of the time. "
                     "<code>options.drift_probe</code> gives the same numbers in your own trainer.",
                     "class=\"note\""));
}

}  // namespace syncbn::train
