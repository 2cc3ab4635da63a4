// SPDX-License-Identifier: MIT
// The files that a run leaves.
#pragma once

#include <filesystem>
#include <fstream>

#include <mpi.h>

#include "comparison.hpp"

namespace syncbn::train {

/// A folder with metrics.jsonl, which grows with the run, and files that appear whole when they are done.
/// Rank 0 writes; the object exists on all ranks.
class RunFolder {
 public:
  /// What becomes of an earlier run: its files are removed, or metrics.jsonl and the checkpoint are kept and metrics.jsonl
  /// goes on.
  enum class Earlier { removed, continued };

  /// Makes the folder if need be and opens metrics.jsonl. An empty path: no files.
  /// Collective. Throws DataError on all ranks if that fails.
  RunFolder(const std::filesystem::path& path, MPI_Comm comm, Earlier earlier = Earlier::removed);

  /// Appends a line to metrics.jsonl and flushes it. Local; a failure is kept for finish().
  void record(const std::string& line);

  /// Writes a file under a temporary name, then renames it. Local; a failure is kept for finish().
  void write(const std::string& name, const std::string& text);

  /// Collective. Throws DataError on all ranks if anything could not be written; an empty metrics.jsonl goes then.
  void finish();

 private:
  bool writes() const noexcept { return rank_ == 0 && !path_.empty(); }
  void open(Earlier earlier);

  std::filesystem::path path_;
  MPI_Comm comm_;
  int rank_;
  std::ofstream metrics_;
  std::string failure_;
};

/// What run.json says of a run beside its results.
struct RunDescription {
  std::string command;  ///< "train", "compare"
  std::string data;     ///< DataSet::name
  TrainingOptions training;
  std::vector<Arm> arms;
  std::vector<std::uint64_t> seeds;
  Index ranks = 1;
};

/// Lines of metrics.jsonl.
std::string step_line(const std::string& label, std::uint64_t seed, const StepRecord& record);
std::string epoch_line(const std::string& label, std::uint64_t seed, const EpochRecord& record);

/// At most some 400 step lines a run: whether this step gets one.
bool is_recorded(const StepRecord& record);

/// Texts of the files of their names. The hash is in hexadecimal, 16 digits.
std::string run_json(const RunDescription& description, const Comparison& comparison);
std::string summary_csv(const RunDescription& description, const Comparison& comparison);
std::string hex_of(std::uint64_t hash);

}  // namespace syncbn::train
