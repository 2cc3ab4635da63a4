// SPDX-License-Identifier: MIT
// The files that a run leaves.
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>

#include <mpi.h>

#include "checkpoint.hpp"
#include "comparison.hpp"
#include "rank_places.hpp"
#include "run_sessions.hpp"

namespace syncbn::train {

/// All that a run may write into its folder; the first kFilesThatGoOn of them belong to a run that goes on, too.
inline constexpr std::size_t kFilesThatGoOn = 2;
inline constexpr const char* kRunFiles[] = {"metrics.jsonl", kCheckpointName, "summary.csv", "run.json", "report.html"};

/// A folder with metrics.jsonl, which grows with the run, and files that appear whole: an interrupted run leaves what it
/// has said so far, and nothing half-written but perhaps the last line of metrics.jsonl. Rank 0 writes; the object exists
/// on all ranks.
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

  /// All lines that record() was given on rank 0, whether or not they could be written. Empty on other ranks.
  const std::string& recorded() const noexcept { return recorded_; }

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
  std::string recorded_;
  std::string failure_;
};

/// Writes a file under a temporary name in the same folder, then renames it; there is the whole file or what was there
/// before. Throws DataError.
void write_whole(const std::filesystem::path& path, const std::string& text);

/// What run.json says of a run beside its results.
struct RunDescription {
  std::string command;       ///< "train", "compare"
  std::string command_line;  ///< To run it again.
  std::string data;          ///< DataSet::name
  Index train_count = 0;     ///< Images.
  Index test_count = 0;
  ImageShape image;
  ComparisonOptions options;             ///< `ranks` are there.
  Index ranks = 1;                       ///< Of the communicator: processes of the run.
  RankPlaces places;                     ///< On rank 0.
  std::string started;                   ///< UTC, "2026-01-31T23:59:59Z".
  Index first_step = 1;                  ///< Of this session, where a training goes on from a checkpoint,
  std::vector<RunSession> earlier = {};  ///< and those before it. On rank 0.
};

/// Collective: one small gather. Throws MpiError.
RunDescription describe_run(const std::string& command, const std::string& command_line, const DataSet& data,
                            const ComparisonOptions& options, MPI_Comm comm);

/// Lines of metrics.jsonl: while a network trains (drift_line() of a record that has drifts), at its end, and when sync has been checked against single.
std::string step_line(const TrainingId& id, const StepRecord& record);
std::string drift_line(const TrainingId& id, const StepRecord& record);
std::string epoch_line(const TrainingId& id, const EpochRecord& record);
std::string end_line(const TrainingId& id, const TrainingResult& result);
std::string check_line(const SyncCheck& check);

/// At most some 400 step lines a run: whether this step gets one.
bool is_recorded(const StepRecord& record);

/// How a run without results stands.
struct RunState {
  enum class Kind { running, stopped, failed } kind = Kind::running;
  Index steps_done = 0;    ///< Of a training that was stopped or has failed.
  std::string error = "";  ///< Of one that has failed: the sentence.
};

/// Texts of the files of their names. The hash is in hexadecimal, 16 digits. run.json has what the run was started with and its
/// "state": "running" (so it stays if the run is killed), "stopped", "failed" or "finished"; results with the last, and of a
/// comparison that was stopped those that are complete. In summary.csv a training's numbers are those of its last epoch,
/// those called final and errors by other statistics the page's: medians of the last kFinalEpochs epochs.
std::string run_json(const RunDescription& run, const RunState& state = {});
std::string run_json(const RunDescription& run, const Comparison& comparison);
std::string summary_csv(const Comparison& comparison);

/// A run that is one training as one object, for programs: what run.json has, and all epochs with their learning rates. Either
/// of one that has no result (yet), or with it.
std::string train_json(const RunDescription& run, const RunState& state, const std::vector<EpochRecord>& epochs);
std::string train_json(const RunDescription& run, const TrainingResult& result);
std::string hex_of(std::uint64_t hash);

}  // namespace syncbn::train
