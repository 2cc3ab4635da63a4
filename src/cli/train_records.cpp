// SPDX-License-Identifier: MIT
#include "train_records.hpp"

#include <cstdio>
#include <utility>

#include "agree.hpp"
#include "train/collectives.hpp"
#include "train/errors.hpp"

namespace syncbn::cli {

TrainRecords::TrainRecords(std::string out, std::string json, const train::RunDescription& run, MPI_Comm comm)
    : out_(std::move(out)), json_(std::move(json)), run_(run), comm_(comm) {}

void TrainRecords::begin() {
  if (json_.empty() || has_stdout()) return;
  train::on_first_rank(comm_, [this] {
    check_json_is_no_file_of_out();
    const auto normal = [](const std::filesystem::path& folder) { return (folder / "").lexically_normal(); };
    std::error_code error;
    const bool is_in_out = !out_.empty() && normal(out_) == normal(std::filesystem::path(json_).parent_path());
    if (is_in_out && !std::filesystem::exists(out_, error)) return;  // the folder is made later
    train::write_whole(json_, train::train_json(run_, {}, {}));
  });
}

void TrainRecords::check_json_is_no_file_of_out() const {
  if (out_.empty()) return;
  std::error_code error;
  const std::filesystem::path file = std::filesystem::weakly_canonical(json_, error);
  for (const char* name : train::kRunFiles) {
    if (error || file != std::filesystem::weakly_canonical(out_ / name, error)) continue;
    throw train::UsageError("--json " + json_ + " is a file of --out itself, wanted another name");
  }
}

train::Observer TrainRecords::follow(const train::Observer& observer, const train::Checkpoint* start) {
  if (start) {
    steps_done_ = static_cast<Index>(start->step_losses.size());
    epochs_ = start->epochs;
  }
  train::Observer both = observer;
  both.on_step = [this, observer](const train::StepRecord& record) {
    steps_done_ = record.step;
    observer.on_step(record);
  };
  both.on_epoch = [this, observer](const train::EpochRecord& record) {
    epochs_.push_back(record);
    observer.on_epoch(record);
  };
  return both;
}

void TrainRecords::write(const train::RunState& state) {
  train::on_first_rank(comm_, [&] {
    write_texts(train::run_json(run_, state), train::train_json(run_, state, epochs_),
                state.kind != train::RunState::Kind::running);
  });
}

void TrainRecords::write_running() { write({}); }

void TrainRecords::write_stopped() { write({train::RunState::Kind::stopped, steps_done_}); }

void TrainRecords::write_finished(const train::TrainingResult& result) {
  train::on_first_rank(comm_, [&] {
    const train::ArmRun whole{run_.options.arms.front(), run_.ranks, run_.options.batches.front(),
                              run_.options.seeds.front(), result};
    write_texts(train::run_json(run_, {{whole}, {}}), train::train_json(run_, result), true);
  });
}

void TrainRecords::write_failed(const std::string& error) noexcept try {
  if (rank_of(comm_) != 0) return;
  const train::RunState state{train::RunState::Kind::failed, steps_done_, error};
  write_texts(train::run_json(run_, state), train::train_json(run_, state, epochs_), true);
} catch (const std::exception&) {  // the failure that is told of is the one that counts
}

void TrainRecords::write_texts(const std::string& run_json, const std::string& train_json, bool has_ended) const {
  if (!out_.empty()) train::write_whole(out_ / "run.json", run_json);
  if (has_stdout()) {
    if (!has_ended) return;
    std::fputs(train_json.c_str(), stdout);
    std::fflush(stdout);  // the failure that it tells of may end the process without
  } else if (!json_.empty()) {
    train::write_whole(json_, train_json);
  }
}

}  // namespace syncbn::cli
