// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>

#include "dataset.hpp"

namespace syncbn::train {

/// The images of a folder, which has either IDX files (idx.hpp) or those of CIFAR-10 (cifar.hpp).
/// Local. Throws DataError, one sentence, if there is no such folder, if it has neither or both, or if a file is not what
/// it should be.
DataSet load_data_folder(const std::filesystem::path& folder);

}  // namespace syncbn::train
