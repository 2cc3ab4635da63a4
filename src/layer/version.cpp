// SPDX-License-Identifier: MIT
#include "syncbn/version.hpp"

#include "kernels/kernels.hpp"

namespace syncbn {

const char* instruction_set() noexcept { return kernels::name_of(kernels::chosen_isa().isa); }

}  // namespace syncbn
