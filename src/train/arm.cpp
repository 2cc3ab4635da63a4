// SPDX-License-Identifier: MIT
#include "arm.hpp"

#include <algorithm>
#include <charconv>
#include <climits>
#include <utility>

#include "collectives.hpp"
#include "errors.hpp"
#include "syncbn/error.hpp"
#include "watched.hpp"

namespace syncbn::train {

Arm Arm::parse(const std::string& text) {
  if (text == "single") return {Kind::single, 0};
  if (text == "sync") return {Kind::sync, 0};
  if (text == "local") return {Kind::local, 0};
  if (text.rfind("group:", 0) == 0) {
    Index size = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + 6, end, size);
    if (error == std::errc() && stop == end && size >= 1) return {Kind::group, size};
    throw UsageError("arm '" + text + "' needs a number of ranks of at least 1 behind the colon, like group:2");
  }
  throw UsageError("there is no arm '" + text + "', only single, sync, local and group:k");
}

std::string Arm::name() const {
  switch (kind) {
    case Kind::single:
      return "single";
    case Kind::sync:
      return "sync";
    case Kind::local:
      return "local";
    case Kind::group:
      return "group:" + std::to_string(group_size);
  }
  return "";
}

ArmRanks::ArmRanks(const Arm& arm, MPI_Comm comm, std::function<void()> on_work)
    : trainers_(arm.kind == Arm::Kind::single ? MPI_COMM_SELF : comm),
      on_work_(std::move(on_work)),
      rank_(rank_of(trainers_)),
      size_(size_of(trainers_)) {
  if (arm.kind == Arm::Kind::sync) norm_group_ = communicator_over(comm);
  if (arm.kind == Arm::Kind::group) {
    norm_group_ = Communicator::groups_of(static_cast<int>(std::min<Index>(arm.group_size, INT_MAX)), comm);
  }
  if (norm_group_.size() < size_) gradients_ = ParameterGradients::local;
}

void ArmRanks::still_here() const {
  train::still_here(trainers_);
  if (on_work_) on_work_();
}

BatchNorm ArmRanks::make_norm(Index num_features, const std::string& name, Activation activation, DataType type) const {
  BatchNormOptions options;
  options.num_features = num_features;
  options.name = name;
  options.activation = activation;
  options.parameter_type = type;
  return make_norm(options);
}

BatchNorm ArmRanks::make_norm(BatchNormOptions options) const {
  options.parameter_gradients = gradients_;
  return BatchNorm(options, norm_group_);
}

}  // namespace syncbn::train
