// SPDX-License-Identifier: MIT
#include "layer/contract.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <sstream>
#include <string>

#include "layer/check.hpp"

namespace syncbn::layer {
namespace {

/// The options as they travel: fixed size, every byte defined.
struct Contract {
  std::int64_t num_features;
  double eps;
  double momentum;  // -1: cumulative average
  std::int32_t affine;
  std::int32_t track_running_stats;
  std::int32_t unbiased_running_var;
  std::int32_t parameter_gradients;
  std::int32_t parameter_type;
  std::int32_t reduction;
  std::int32_t non_finite;
  std::int32_t activation;  // (no padding: every byte is defined)
  std::uint64_t name_hash;
  char name[64];  // its beginning, for the message
};

/// FNV-1a, 64 bits.
std::uint64_t hash_of(const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

Contract contract_of(const BatchNormOptions& options) {
  Contract contract = {};
  contract.num_features = options.num_features;
  contract.eps = options.eps;
  contract.momentum = options.momentum.value_or(-1.0);
  contract.affine = options.affine;
  contract.track_running_stats = options.track_running_stats;
  contract.unbiased_running_var = options.unbiased_running_var;
  contract.parameter_gradients = static_cast<std::int32_t>(options.parameter_gradients);
  contract.parameter_type = static_cast<std::int32_t>(options.parameter_type);
  contract.reduction = static_cast<std::int32_t>(options.reduction);
  contract.non_finite = static_cast<std::int32_t>(options.non_finite);
  contract.activation = static_cast<std::int32_t>(options.activation);
  contract.name_hash = hash_of(options.name);
  options.name.copy(contract.name, sizeof contract.name - 1);
  return contract;
}

/// "eps is 0.001, rank 0 has 1e-05", or nothing if the two values are equal.
template <class T>
std::string difference(const char* field, const T& mine, const T& of_rank_0) {
  if (mine == of_rank_0) return {};
  std::ostringstream text;
  text << field << " is " << mine << ", rank 0 has " << of_rank_0;
  return text.str();
}

std::string first_difference(const Contract& mine, const Contract& of_rank_0) {
  const std::string differences[] = {
      difference("num_features", mine.num_features, of_rank_0.num_features),
      difference("eps", mine.eps, of_rank_0.eps),
      difference("momentum", mine.momentum, of_rank_0.momentum),
      difference("affine", mine.affine, of_rank_0.affine),
      difference("track_running_stats", mine.track_running_stats, of_rank_0.track_running_stats),
      difference("unbiased_running_var", mine.unbiased_running_var, of_rank_0.unbiased_running_var),
      difference("parameter_gradients", mine.parameter_gradients, of_rank_0.parameter_gradients),
      difference("parameter_type", mine.parameter_type, of_rank_0.parameter_type),
      difference("reduction", mine.reduction, of_rank_0.reduction),
      difference("non_finite", mine.non_finite, of_rank_0.non_finite),
      difference("activation", mine.activation, of_rank_0.activation),
      difference("name", std::string(mine.name), std::string(of_rank_0.name)),
      difference("the hash of name (which begins alike)", mine.name_hash, of_rank_0.name_hash),
  };
  const auto found =
      std::find_if(std::begin(differences), std::end(differences), [](const auto& d) { return !d.empty(); });
  return found == std::end(differences) ? std::string() : *found;
}

Contract contract_in(const std::byte* bytes) {
  Contract contract;
  std::memcpy(&contract, bytes, sizeof contract);
  return contract;
}

}  // namespace

const char* name_of(Pass pass) {
  switch (pass) {
    case Pass::any:
      return "any pass";
    case Pass::construction:
      return "construction";
    case Pass::forward:
      return "forward";
    case Pass::backward:
      return "backward";
  }
  return "unknown pass";
}

void check_contract(const BatchNormOptions& options, comm::Group& group, const std::optional<Problem>& problem) {
  static_assert(sizeof(Contract) <= comm::Group::kPledgeBytes);
  const Contract mine = contract_of(options);
  const auto found = group.pledge(comm::OwnPass::layer, &mine, sizeof mine, {}, problem);
  if (!found) return;
  const Contract other = contract_in(found->other);
  throw MismatchError(where(other.name, name_of(Pass::construction)) + " " +
                      first_difference(other, contract_in(found->first)) + " (rank " + std::to_string(found->rank) +
                      " of " + std::to_string(group.size()) + ")");
}

}  // namespace syncbn::layer
