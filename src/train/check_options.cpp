// SPDX-License-Identifier: MIT
// Whether a training's options make sense.
#include <algorithm>
#include <cmath>

#include "errors.hpp"
#include "network.hpp"
#include "report_text.hpp"
#include "trainer.hpp"

namespace syncbn::train {

namespace {

[[noreturn]] void refuse(const std::string& what, double got, const std::string& wanted) {
  std::string number = std::to_string(got);
  number.erase(number.find_last_not_of('0') + 1);
  if (!number.empty() && number.back() == '.') number.pop_back();
  throw UsageError(what + " is " + number + ", wanted " + wanted);
}

void check_schedule(const SgdOptions& sgd, Index steps) {
  if (sgd.warmup_steps < 0 || (sgd.warmup_steps > steps && steps > 0)) {
    refuse("the warmup", static_cast<double>(sgd.warmup_steps),
           "0 to " + std::to_string(steps) + " steps (all of them)");
  }
  if (!(std::isfinite(sgd.lr_gamma) && sgd.lr_gamma > 0)) refuse("--lr-gamma", sgd.lr_gamma, "a finite number above 0");
  const bool has_milestones = !sgd.milestones.empty();
  if (has_milestones != (sgd.schedule == Schedule::multistep)) {
    throw UsageError(has_milestones ? "--milestones are for --schedule multistep"
                                    : "--schedule multistep needs --milestones, epochs like 3,6");
  }
  Index last = 0;
  for (const Index milestone : sgd.milestones) {
    if (milestone <= last) {
      refuse("a milestone", static_cast<double>(milestone), "more than " + counted(last, "epoch"));
    }
    last = milestone;
  }
}

}  // namespace

void check_options(const TrainingOptions& options, const DataSet& data) {
  if (!is_network(options.network)) {
    throw UsageError("there is no network '" + options.network + "', only " + network_names());
  }
  constexpr Index kMaxEpochs = 1000000;  // the number of steps must fit 64 bits
  if (options.epochs < 0 || options.epochs > kMaxEpochs) {
    refuse("the number of epochs", static_cast<double>(options.epochs), "0 to " + std::to_string(kMaxEpochs));
  }
  if (options.batch < 1 || options.batch > data.train.count) {
    refuse("the global batch", static_cast<double>(options.batch),
           "1 to " + std::to_string(data.train.count) + " samples (the training set)");
  }
  constexpr int kMostThreads = 1024;  // the layer's own limit
  if (options.threads < 1 || options.threads > kMostThreads) {
    refuse("the number of threads", options.threads, "1 to " + std::to_string(kMostThreads));
  }
  const SgdOptions& sgd = options.sgd;
  if (!(std::isfinite(sgd.learning_rate) && sgd.learning_rate > 0)) {
    refuse("the learning rate", sgd.learning_rate, "a finite number above 0");
  }
  if (!(sgd.momentum >= 0 && sgd.momentum < 1)) refuse("the momentum", sgd.momentum, "0 or more and less than 1");
  if (!(std::isfinite(sgd.weight_decay) && sgd.weight_decay >= 0)) {
    refuse("the weight decay", sgd.weight_decay, "a finite number, 0 or more");
  }
  check_schedule(sgd, options.epochs * (data.train.count / options.batch));
}

std::string unreached_milestones(const TrainingOptions& options) {
  std::string list;
  const std::vector<Index>& milestones = options.sgd.milestones;
  const auto first =
      std::find_if(milestones.begin(), milestones.end(), [&](Index milestone) { return milestone >= options.epochs; });
  for (auto milestone = first; milestone != milestones.end(); ++milestone) {
    if (!list.empty()) list += ',';
    list += std::to_string(*milestone);
  }
  if (list.empty()) return "";
  return "--milestones " + list + (milestones.end() - first > 1 ? " are" : " is") +
         " never reached: the training ends after " + counted(options.epochs, "epoch");
}

}  // namespace syncbn::train
