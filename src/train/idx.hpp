// SPDX-License-Identifier: MIT
// Reads image sets in the IDX format of MNIST.
#pragma once

#include <filesystem>

#include "dataset.hpp"

namespace syncbn::train {

/// The folder has at least one of the files that load_idx_folder() looks for. Local.
bool has_idx_files(const std::filesystem::path& folder);

/// Reads {train,t10k}-{images-idx3,labels-idx1}-ubyte from `folder`, raw or .gz (also with a dot before "idx").
///
/// Counts and sizes come from the files' headers. Memory grows with what a file really holds, not with what its header
/// says; at most 4 GiB a file.
/// Local. Throws DataError, with the file's name, if a file is missing, is not what it should be, or does not fit the
/// others.
DataSet load_idx_folder(const std::filesystem::path& folder);

/// One pair of files.
LabelledImages load_idx_pair(const std::filesystem::path& images, const std::filesystem::path& labels);

}  // namespace syncbn::train
