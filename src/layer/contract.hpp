// SPDX-License-Identifier: MIT
// At construction: are the options the same on all ranks?
#pragma once

#include <optional>

#include "comm/group.hpp"
#include "syncbn/options.hpp"

namespace syncbn::layer {

/// The numbers of the rounds' passes, as they travel in messages.
enum class Pass : std::int32_t { any = comm::RoundKey::kAnyPass, construction = 1, forward = 2, backward = 3 };

/// "forward", ...
const char* name_of(Pass pass);

/// `problem`: what this rank found wrong already. Throws the same error on all ranks if one of them brings a problem, or an
/// option that is not rank 0's. Collective: one message of fixed size, so that nothing whose size depends on an option is
/// ever sent between ranks that disagree about it.
void check_contract(const BatchNormOptions& options, comm::Group& group, const std::optional<comm::Problem>& problem);

}  // namespace syncbn::layer
