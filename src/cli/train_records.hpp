// SPDX-License-Identifier: MIT
// What syncbn train says of its training to other programs: run.json in --out, and the object of --json.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <mpi.h>

#include "train/run_folder.hpp"

namespace syncbn::cli {

/// Both have the same "state" at any time. The object exists on all ranks, rank 0 writes.
class TrainRecords {
 public:
  /// `out`: the folder, or empty. `json`: a file, "-" for stdout (then only at the end), or empty. `run` is borrowed.
  TrainRecords(std::string out, std::string json, const train::RunDescription& run, MPI_Comm comm);

  /// Whether stdout is for the object alone.
  bool has_stdout() const noexcept { return json_ == "-"; }

  /// Writes --json as of a training that is running, so that a file that cannot be written ends it before anything is lost.
  /// Collective. Throws UsageError if the file is one of those of --out, DataError.
  void begin();

  /// `observer`, which also keeps what this object tells of the training, from its first epoch or from `start` on.
  train::Observer follow(const train::Observer& observer, const train::Checkpoint* start);

  /// When the folder has been opened, and when the training has ended in one of three ways. Collective; they throw DataError.
  /// But write_failed() is local and does what it can.
  void write_running();
  void write_stopped();
  void write_finished(const train::TrainingResult& result);
  void write_failed(const std::string& error) noexcept;

 private:
  void write(const train::RunState& state);
  void write_texts(const std::string& run_json, const std::string& train_json, bool has_ended) const;
  void check_json_is_no_file_of_out() const;

  std::filesystem::path out_;
  std::string json_;
  const train::RunDescription& run_;
  MPI_Comm comm_;
  Index steps_done_ = 0;
  std::vector<train::EpochRecord> epochs_;
};

}  // namespace syncbn::cli
