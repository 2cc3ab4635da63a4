// SPDX-License-Identifier: MIT
// Parts that the records of a run have in common, as JSON. Numbers that are not finite become null.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "run_folder.hpp"

namespace syncbn::train {

using Json = nlohmann::ordered_json;

/// With bytes that are not UTF-8 replaced: a path need not be, JSON must. An indent of -1: one line.
std::string text_of(const Json& json, int indent);

/// "2026-01-31T23:59:59Z"
std::string now_utc();

/// Of the last epoch; NaN if there is none.
double last_train_loss(const TrainingResult& result);

/// All that a run was started with.
Json description_json(const RunDescription& run, const char* state);

/// Those that were evaluated.
void add_accuracies(const OtherAccuracies& others, Json& json);

/// "step_costs", if they are known.
void add_costs(const StepCosts& costs, Json& json);

/// What a training ended with; its costs are the median over its epochs.
Json result_json(const TrainingResult& result);

}  // namespace syncbn::train
