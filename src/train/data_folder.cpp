// SPDX-License-Identifier: MIT
#include "data_folder.hpp"

#include "cifar.hpp"
#include "errors.hpp"
#include "idx.hpp"

namespace syncbn::train {

namespace {

constexpr const char* kIdxFiles = "IDX files ({train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz])";
constexpr const char* kCifarFiles = "CIFAR-10 files (data_batch_{1,2,3,4,5}.bin, test_batch.bin)";

}  // namespace

DataSet load_data_folder(const std::filesystem::path& folder) {
  const std::string name = "the data folder " + folder.string();
  std::error_code error;
  if (!std::filesystem::exists(folder, error)) throw DataError(name + " does not exist");
  if (!std::filesystem::is_directory(folder, error)) throw DataError(name + " is not a folder");

  const bool has_idx = has_idx_files(folder);
  const std::optional<std::filesystem::path> cifar = find_cifar_folder(folder);
  if (has_idx && cifar) throw DataError(name + " has both " + kIdxFiles + " and " + kCifarFiles + ", wanted one kind");
  if (has_idx) return load_idx_folder(folder);
  if (cifar) return load_cifar_folder(*cifar);
  throw DataError(name + " has neither " + kIdxFiles + " nor " + kCifarFiles);
}

}  // namespace syncbn::train
