// SPDX-License-Identifier: MIT
// A training that goes on from a checkpoint has the bits of one that never stopped.
#include "train/checkpoint.hpp"

#include <gtest/gtest.h>

#include "cli/temporary_folder.hpp"
#include "train/collectives.hpp"
#include "train/errors.hpp"
#include "train/generator.hpp"

namespace syncbn::train {
namespace {

constexpr Index kSteps = 3 * 5;

const DataSet& data() {
  static const DataSet images = generate_strokes({.train_count = 120, .test_count = 40, .seed = 20});
  return images;
}

TrainingOptions options(const std::string& network) {
  TrainingOptions result;
  result.network = network;
  result.epochs = 3;
  result.batch = 22;  // 5 steps an epoch
  return result;
}

/// One folder for all ranks.
class SharedFolder {
 public:
  SharedFolder() {
    std::string name = own_ / "shared";
    std::vector<char> text(name.begin(), name.end());
    broadcast(MPI_COMM_WORLD, text);
    path_ = std::string(text.begin(), text.end());
    if (rank_of(MPI_COMM_WORLD) == 0) std::filesystem::create_directory(path_);
    MPI_Barrier(MPI_COMM_WORLD);
  }
  ~SharedFolder() { MPI_Barrier(MPI_COMM_WORLD); }  // nobody reads any more

  const std::filesystem::path& path() const { return path_; }

 private:
  syncbn::testing::TemporaryFolder own_;
  std::filesystem::path path_;
};

/// The first `count` ranks of the world; MPI_COMM_NULL elsewhere.
class FirstRanks {
 public:
  explicit FirstRanks(int count) {
    MPI_Comm_split(MPI_COMM_WORLD, rank_of(MPI_COMM_WORLD) < count ? 0 : MPI_UNDEFINED, 0, &comm_);
  }
  ~FirstRanks() {
    if (comm_ != MPI_COMM_NULL) MPI_Comm_free(&comm_);
  }
  FirstRanks(const FirstRanks&) = delete;
  FirstRanks& operator=(const FirstRanks&) = delete;

  bool has_me() const { return comm_ != MPI_COMM_NULL; }
  MPI_Comm comm() const { return comm_; }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
};

/// Wants to stop in step `step`, on one rank alone.
Continuation until(const std::filesystem::path& folder, Index step, int rank, MPI_Comm comm) {
  const bool is_mine = rank_of(comm) == rank;
  Continuation continuation;
  continuation.folder = folder;
  continuation.every = 1000;
  continuation.wants_stop = [is_mine, step, asked = Index{0}]() mutable { return is_mine && ++asked >= step; };
  return continuation;
}

TrainingResult resume(const std::filesystem::path& folder, const TrainingOptions& training, const Arm& arm,
                      MPI_Comm comm) {
  const Checkpoint start = load_checkpoint(folder, key_of(data(), training, arm, size_of(comm)), comm);
  Continuation continuation;
  continuation.start = &start;
  return train(data(), training, arm, comm, {}, continuation);
}

void expect_same(const TrainingResult& a, const TrainingResult& b) {
  EXPECT_EQ(a.weights_hash, b.weights_hash);
  EXPECT_EQ(a.parameters, b.parameters);
  EXPECT_EQ(a.running_stats, b.running_stats);
  EXPECT_EQ(a.step_losses, b.step_losses);
  EXPECT_EQ(a.test_accuracy, b.test_accuracy);
  ASSERT_EQ(a.epochs.size(), b.epochs.size());
  for (std::size_t i = 0; i < a.epochs.size(); ++i) {
    EXPECT_EQ(a.epochs[i].epoch, b.epochs[i].epoch);
    EXPECT_EQ(a.epochs[i].train_loss, b.epochs[i].train_loss);
    EXPECT_EQ(a.epochs[i].test_accuracy, b.epochs[i].test_accuracy);
  }
}

class Resume : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {};

// Step 1, inside an epoch, its last step (behind the evaluation), and the training's last but one.
TEST_P(Resume, IsTheTrainingThatNeverStopped) {
  const auto [network, arm_name] = GetParam();
  const Arm arm = Arm::parse(arm_name);
  const TrainingOptions training = options(network);
  const TrainingResult whole = train(data(), training, arm, MPI_COMM_WORLD, {});
  const int last = arm.kind == Arm::Kind::single ? 0 : size_of(MPI_COMM_WORLD) - 1;  // in `single` rank 0 alone decides
  for (const Index step : {1, 7, 10, 14}) {
    SCOPED_TRACE(std::string(network) + ", arm " + arm_name + ", stopped after step " + std::to_string(step));
    const SharedFolder folder;
    const TrainingResult part =
        train(data(), training, arm, MPI_COMM_WORLD, {}, until(folder.path(), step, last, MPI_COMM_WORLD));
    EXPECT_TRUE(part.stopped);
    ASSERT_EQ(part.step_losses.size(), static_cast<std::size_t>(step)) << "the wish of rank " << last;
    const TrainingResult rest = resume(folder.path(), training, arm, MPI_COMM_WORLD);
    EXPECT_FALSE(rest.stopped);
    expect_same(rest, whole);
  }
}

INSTANTIATE_TEST_SUITE_P(Arms, Resume,
                         ::testing::Combine(::testing::Values("mlp", "cnn"),
                                            ::testing::Values("single", "sync", "local", "group:2")));

// Fused residual blocks; fewer arms, because it takes ten times as long.
INSTANTIATE_TEST_SUITE_P(Residual, Resume,
                         ::testing::Combine(::testing::Values("resnet"), ::testing::Values("sync", "local")));

TEST(ResumeWithSharding, IsTheTrainingThatNeverStopped) {
  for (const char* mode : {"by-class", "dirichlet:0.3"}) {
    TrainingOptions training = options("mlp");
    training.sharding = Sharding::parse(mode);
    for (const char* name : {"single", "sync", "local"}) {
      SCOPED_TRACE(std::string(mode) + ", arm " + name);
      const Arm arm = Arm::parse(name);
      const TrainingResult whole = train(data(), training, arm, MPI_COMM_WORLD, {});
      const SharedFolder folder;
      train(data(), training, arm, MPI_COMM_WORLD, {}, until(folder.path(), 7, 0, MPI_COMM_WORLD));
      expect_same(resume(folder.path(), training, arm, MPI_COMM_WORLD), whole);
    }
  }
}

TEST(ResumeWithSharding, IsRefusedWhereAnotherIsWanted) {
  TrainingOptions training = options("mlp");
  training.sharding = Sharding::parse("dirichlet:0.3");
  const Arm arm = Arm::parse("sync");
  const SharedFolder folder;
  train(data(), training, arm, MPI_COMM_WORLD, {}, until(folder.path(), 2, 0, MPI_COMM_WORLD));
  for (const char* other : {"iid", "by-class", "dirichlet:0.31"}) {
    training.sharding = Sharding::parse(other);
    try {
      resume(folder.path(), training, arm, MPI_COMM_WORLD);
      ADD_FAILURE() << other << " went on";
    } catch (const UsageError& error) {
      const std::string wanted = std::string("with shard dirichlet:0.3, this one has ") + other;
      EXPECT_NE(std::string(error.what()).find(wanted), std::string::npos) << error.what();
    }
  }
}

TEST(ResumeOnOtherRanks, HasTheSameBits) {
  TrainingOptions training = options("mlp");
  training.sharding = Sharding::parse("dirichlet:0.5");
  const Arm arm = Arm::parse("sync");
  const TrainingResult whole = train(data(), training, arm, MPI_COMM_WORLD, {});
  for (int ranks = 1; ranks < size_of(MPI_COMM_WORLD); ++ranks) {
    SCOPED_TRACE("stopped on " + std::to_string(ranks) + " ranks");
    const SharedFolder folder;
    const FirstRanks some(ranks);
    if (some.has_me()) train(data(), training, arm, some.comm(), {}, until(folder.path(), 8, 0, some.comm()));
    expect_same(resume(folder.path(), training, arm, MPI_COMM_WORLD), whole);

    train(data(), training, arm, MPI_COMM_WORLD, {}, until(folder.path(), 9, 0, MPI_COMM_WORLD));
    if (some.has_me()) expect_same(resume(folder.path(), training, arm, some.comm()), whole);
  }
}

TEST(ResumeOnOtherRanks, IsRefusedWhereRanksDiffer) {
  const int ranks = size_of(MPI_COMM_WORLD);
  if (ranks == 1) GTEST_SKIP() << "there is no smaller number";
  for (const char* name : {"local", "group:2"}) {
    const SharedFolder folder;
    const Arm arm = Arm::parse(name);
    train(data(), options("mlp"), arm, MPI_COMM_WORLD, {}, until(folder.path(), 2, 0, MPI_COMM_WORLD));
    const FirstRanks fewer(ranks - 1);
    if (!fewer.has_me()) continue;
    try {
      resume(folder.path(), options("mlp"), arm, fewer.comm());
      ADD_FAILURE() << name << " went on";
    } catch (const UsageError& error) {
      EXPECT_NE(std::string(error.what()).find("on " + std::to_string(ranks) + " ranks, this one has"),
                std::string::npos)
          << error.what();
    }
  }
}

TEST(ResumeAgain, FromCheckpointsOfEveryStep) {
  const TrainingOptions training = options("mlp");
  const Arm arm = Arm::parse("local");
  const TrainingResult whole = train(data(), training, arm, MPI_COMM_WORLD, {});
  const SharedFolder folder;
  train(data(), training, arm, MPI_COMM_WORLD, {}, until(folder.path(), 1, 0, MPI_COMM_WORLD));
  for (Index step = 2; step < kSteps; ++step) {
    const Checkpoint start =
        load_checkpoint(folder.path(), key_of(data(), training, arm, size_of(MPI_COMM_WORLD)), MPI_COMM_WORLD);
    ASSERT_EQ(start.step_losses.size(), static_cast<std::size_t>(step - 1));
    Continuation one_more = until(folder.path(), 1, 0, MPI_COMM_WORLD);
    one_more.start = &start;
    train(data(), training, arm, MPI_COMM_WORLD, {}, one_more);
  }
  expect_same(resume(folder.path(), training, arm, MPI_COMM_WORLD), whole);
}

TEST(Checkpoints, AreWrittenWhenTheyAreDueAndAtTheEnd) {
  const TrainingOptions training = options("mlp");
  const Arm arm = Arm::parse("sync");
  const TrainingKey key = key_of(data(), training, arm, size_of(MPI_COMM_WORLD));
  for (const auto& [every, wanted] : {std::pair<Index, Index>{0, 5}, {4, 4}, {1, 7}, {100, 0}}) {
    SCOPED_TRACE("every " + std::to_string(every));
    const SharedFolder folder;
    Index newest = 0;  // of the files that there are after 7 steps
    Observer observer;
    observer.on_step = [&](const StepRecord& record) {
      if (record.step != 8 || !std::filesystem::exists(folder.path() / kCheckpointName)) return;
      newest = static_cast<Index>(load_checkpoint(folder.path(), key, MPI_COMM_SELF).step_losses.size());
    };
    Continuation continuation;
    continuation.folder = folder.path();
    continuation.every = every;
    const TrainingResult whole = train(data(), training, arm, MPI_COMM_WORLD, observer, continuation);
    EXPECT_EQ(newest, rank_of(MPI_COMM_WORLD) == 0 ? wanted : 0);
    expect_same(resume(folder.path(), training, arm, MPI_COMM_WORLD), whole);
  }
}

TEST(Checkpoints, OfATrainingWithoutFolderAreNotWritten) {
  const TrainingResult part =
      train(data(), options("mlp"), Arm::parse("sync"), MPI_COMM_WORLD, {}, until("", 3, 0, MPI_COMM_WORLD));
  EXPECT_TRUE(part.stopped);
  EXPECT_EQ(part.step_losses.size(), 3u);
}

TEST(Checkpoints, AWishInTheLastStepComesTooLate) {
  const TrainingResult whole =
      train(data(), options("mlp"), Arm::parse("sync"), MPI_COMM_WORLD, {}, until("", kSteps, 0, MPI_COMM_WORLD));
  EXPECT_FALSE(whole.stopped);
  EXPECT_EQ(whole.epochs.size(), 3u);
}

TEST(Checkpoints, ThatCannotBeWrittenEndTheTrainingOnAllRanks) {
  const SharedFolder folder;
  Continuation continuation;
  continuation.folder = folder.path() / "missing";
  EXPECT_THROW(train(data(), options("mlp"), Arm::parse("sync"), MPI_COMM_WORLD, {}, continuation), DataError);
  EXPECT_THROW(train(data(), options("mlp"), Arm::parse("single"), MPI_COMM_WORLD, {}, continuation), DataError);
}

}  // namespace
}  // namespace syncbn::train
