// SPDX-License-Identifier: MIT
// A communicator's options, with what the environment says.
#pragma once

#include <optional>

#include "comm/group.hpp"
#include "syncbn/communicator.hpp"

namespace syncbn::comm {

/// `problem` <- what is wrong with them, if anything; the result can be used all the same.
GroupOptions group_options_from(const CommunicatorOptions& options, std::optional<Problem>& problem);

}  // namespace syncbn::comm
