// SPDX-License-Identifier: MIT
#include "step_costs.hpp"

#include <algorithm>
#include <numeric>

#include "report_summary.hpp"

namespace syncbn::train {

namespace {

constexpr double StepCosts::*kParts[] = {&StepCosts::statistics_seconds, &StepCosts::message_seconds,
                                         &StepCosts::element_seconds, &StepCosts::rest_seconds,
                                         &StepCosts::message_bytes};

}  // namespace

StepCosts take_step_costs(const Network<float>& network, const std::vector<double>& step_seconds) {
  StepCosts sum{0, 0, 0, 0, 0};
  for (BatchNorm* norm : network.trainables.norms) {
    for (const PassCosts& pass : {norm->costs().forward, norm->costs().backward}) {
      sum.statistics_seconds += pass.statistics_seconds;
      sum.message_seconds += pass.message_seconds;
      sum.element_seconds += pass.element_seconds;
      sum.message_bytes += static_cast<double>(pass.message_bytes);
    }
    norm->reset_costs();
  }
  sum.rest_seconds = std::accumulate(step_seconds.begin(), step_seconds.end(), 0.0) - sum.seconds();
  // The layers' times are parts of the steps'; only their rounding may say otherwise.
  sum.rest_seconds = std::max(0.0, sum.rest_seconds);
  const auto steps = static_cast<double>(step_seconds.size());
  for (double StepCosts::*part : kParts) sum.*part /= steps;
  return sum;
}

StepCosts median_of(const std::vector<StepCosts>& costs) {
  StepCosts median;
  for (double StepCosts::*part : kParts) {
    std::vector<double> values;
    for (const StepCosts& each : costs) {
      if (each.are_known()) values.push_back(each.*part);
    }
    median.*part = spread_of(std::move(values)).median;
  }
  return median;
}

}  // namespace syncbn::train
