// SPDX-License-Identifier: MIT
#include "report_summary.hpp"

#include <algorithm>
#include <cmath>

#include "step_costs.hpp"

namespace syncbn::train {

namespace {

RecordedShare share_of(const RunRecord& run, const std::string& arm, Index ranks, Index batch) {
  const auto found = std::find_if(run.shares.begin(), run.shares.end(), [&](const RecordedShare& share) {
    return share.arm == arm && share.ranks == ranks && share.batch == batch;
  });
  return found == run.shares.end() ? RecordedShare{arm, ranks, batch, {}, {}} : *found;
}

Spread spread_over(const ArmFigures& figures, const std::function<double(const RecordedEpoch&)>& number) {
  std::vector<double> values;
  for (const RecordedTraining* training : figures.trainings) values.push_back(final_value(*training, number));
  return spread_of(values);
}

ArmFigures figures_of_arm(const RunRecord& run, const std::string& arm, Index ranks, Index batch) {
  ArmFigures figures;
  figures.arm = arm;
  figures.ranks = ranks;
  figures.batch = batch;
  figures.share = share_of(run, arm, ranks, batch);
  std::vector<double> errors, losses, times;
  std::vector<StepCosts> costs;
  for (const RecordedTraining& training : run.trainings) {
    if (training.id.label != arm || training.id.ranks != ranks || training.id.batch != batch) continue;
    ++figures.begun;
    figures.ended += training.has_ended ? 1 : 0;
    figures.diverged += training.has_diverged ? 1 : 0;
    if (!training.has_ended || training.has_diverged) continue;
    figures.trainings.push_back(&training);
    errors.push_back(final_error(training));
    losses.push_back(final_value(training, [](const RecordedEpoch& epoch) { return epoch.train_loss; }));
    times.push_back(step_seconds(training));
    for (const RecordedEpoch& epoch : training.epochs) costs.push_back(epoch.costs);
  }
  figures.error = spread_of(errors);
  figures.mean_statistics_error = spread_over(figures, [](const auto& epoch) { return epoch.mean_statistics_error; });
  figures.best_rank_error = spread_over(figures, [](const auto& epoch) { return epoch.best_rank_error; });
  figures.worst_rank_error = spread_over(figures, [](const auto& epoch) { return epoch.worst_rank_error; });
  figures.precise_error = spread_over(figures, [](const auto& epoch) { return epoch.precise_error; });
  figures.train_mode_error = spread_over(figures, [](const auto& epoch) { return epoch.train_mode_error; });
  figures.train_loss = spread_of(losses);
  figures.step_seconds = spread_of(times);
  figures.costs = median_of(costs);
  return figures;
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  values.erase(std::remove_if(values.begin(), values.end(), [](double value) { return std::isnan(value); }),
               values.end());
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
  return {static_cast<Index>(values.size()), median, values.front(), values.back()};
}

double final_value(const RecordedTraining& training, const std::function<double(const RecordedEpoch&)>& number) {
  std::vector<double> values;
  const auto& epochs = training.epochs;
  for (std::size_t i = epochs.size() - std::min(epochs.size(), static_cast<std::size_t>(kFinalEpochs));
       i < epochs.size(); ++i) {
    values.push_back(number(epochs[i]));
  }
  return spread_of(values).median;
}

double final_error(const RecordedTraining& training) {
  return final_value(training, [](const RecordedEpoch& epoch) { return epoch.test_error; });
}

EndWords end_words(Index epochs) {
  if (epochs <= 1) {
    return {"test error after the only epoch", "that of a training's only epoch",
            "There was one epoch: the error of a training is that after it, and hardly one of a trained network."};
  }
  if (epochs == 2) {
    return {"test error, mean of both epochs", "the mean of a training's two epochs",
            "There were two epochs: the error of a training is the mean of both, and hardly one of a trained network."};
  }
  if (epochs == kFinalEpochs) return {"test error at the end", "the median of a training's 3 epochs", ""};
  return {"test error at the end", "the median of a training's last 3 epochs", ""};
}

double step_seconds(const RecordedTraining& training) {
  std::vector<double> values;
  for (const RecordedEpoch& epoch : training.epochs) values.push_back(epoch.step_seconds);
  return spread_of(values).median;
}

std::vector<ArmFigures> figures_of(const RunRecord& run) {
  std::vector<ArmFigures> figures;
  for (const Index batch : run.batches) {
    for (const ArmOnRanks& what : arms_on_ranks(run)) {
      figures.push_back(figures_of_arm(run, what.arm.name(), what.ranks, batch));
    }
  }
  return figures;
}

const ArmFigures* find_figures(const std::vector<ArmFigures>& figures, const std::string& arm, Index ranks,
                               Index batch) {
  const auto found = std::find_if(figures.begin(), figures.end(), [&](const ArmFigures& candidate) {
    return candidate.arm == arm && candidate.ranks == ranks && candidate.batch == batch;
  });
  return found == figures.end() ? nullptr : &*found;
}

std::string list_text(const std::vector<Index>& numbers) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (i > 0) text += i + 1 == numbers.size() ? " and " : ", ";
    text += std::to_string(numbers[i]);
  }
  return text;
}

std::string sizes_text(const ShareSizes& sizes) {
  const std::string smallest = std::to_string(sizes.smallest);
  return sizes.smallest == sizes.largest ? smallest : smallest + " to " + std::to_string(sizes.largest);
}

std::string samples_text(const ShareSizes& sizes) {
  return sizes_text(sizes) + (sizes.smallest == 1 && sizes.largest == 1 ? " sample" : " samples");
}

}  // namespace syncbn::train
