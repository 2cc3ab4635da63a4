// SPDX-License-Identifier: MIT
// Reads CIFAR-10 in its binary form.
#pragma once

#include <filesystem>
#include <optional>

#include "dataset.hpp"

namespace syncbn::train {

/// Where the batch files of CIFAR-10 (at least one of them) are: `folder` itself, or cifar-10-batches-bin in it, which is what
/// the archive unpacks to. Local.
std::optional<std::filesystem::path> find_cifar_folder(const std::filesystem::path& folder);

/// Reads data_batch_1.bin to data_batch_5.bin, one after the other, and test_batch.bin from `folder`.
///
/// Images are 3 x 32 x 32. How many there are follows from the files' sizes; at most 4 GiB a file.
/// Local. Throws DataError, with the file's name, if a file is missing or is not what it should be.
DataSet load_cifar_folder(const std::filesystem::path& folder);

/// Appends the images of one batch file: records of 3073 bytes, a label and 3 x 32 x 32 pixels (red, green, blue planes).
void append_cifar_batch(const std::filesystem::path& path, LabelledImages& images);

}  // namespace syncbn::train
