// SPDX-License-Identifier: MIT
#include <string>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/temporary_folder.hpp"
#include "failure.hpp"
#include "file.hpp"

namespace syncbn::cli {
namespace {

using syncbn::testing::TemporaryFolder;

void put(OutputFolder& folder, const std::string& name, const std::string& text) {
  folder.start(name);
  folder.write(text.data(), static_cast<Index>(text.size()));
  folder.finish();
}

TEST(OutputFolder, FilesAppearTogetherWithPublish) {
  const TemporaryFolder outside;
  OutputFolder folder(outside / "out");
  put(folder, "a", "first");
  put(folder, "b", "second");
  EXPECT_FALSE(std::filesystem::exists(outside / "out/a"));
  folder.publish();
  EXPECT_EQ(outside.load("out/a"), "first");
  EXPECT_EQ(outside.load("out/b"), "second");
}

TEST(OutputFolder, NothingIsLeftWithoutPublish) {
  const TemporaryFolder outside;
  {
    OutputFolder folder(outside / "deep/er/out");
    put(folder, "a", "complete");
    folder.start("b");  // and never finished
    EXPECT_EQ(outside.names(), (std::set<std::string>{"deep"}));
  }
  EXPECT_TRUE(outside.names().empty());
}

TEST(OutputFolder, OlderFilesStayUntilPublish) {
  const TemporaryFolder outside;
  outside.save("a", "older");
  {
    OutputFolder folder(outside / "");
    put(folder, "a", "newer");
  }
  EXPECT_EQ(outside.load("a"), "older");
  OutputFolder folder(outside / "");
  put(folder, "a", "newer");
  folder.publish();
  EXPECT_EQ(outside.load("a"), "newer");
  EXPECT_EQ(outside.names(), (std::set<std::string>{"a"}));
}

TEST(OutputFolder, RemovesWhatKilledProcessesOfThisHostLeft) {
  const TemporaryFolder outside;
  char host[256] = "";
  ASSERT_EQ(::gethostname(host, sizeof host - 1), 0);
  const pid_t ended = ::fork();
  if (ended == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(ended, nullptr, 0), ended);
  const std::string of_host = std::string(".") + host + ".", dead = std::to_string(ended);

  outside.save(".y.npy" + of_host + dead + ".tmp", "half");
  const std::set<std::string> kept{
      ".y.npy" + of_host + std::to_string(::getppid()) + ".tmp",  // alive
      ".y.npy.other-" + std::string(host) + "." + dead + ".tmp",  // may be alive there
      ".y.npy" + of_host + dead + ".tmp.bak",
      ".y.npy" + of_host + "-" + dead + ".tmp",
      ".y.npy" + of_host + dead + "x.tmp",
      ".y.npy" + of_host + ".tmp",
      ".y.txt" + of_host + dead + ".tmp",
      "y.npy" + of_host + dead + ".tmp",
      ".npy" + of_host + dead + ".tmp",
      "y.npy",
  };
  for (const std::string& name : kept) outside.save(name, "mine");
  const OutputFolder folder(outside / "");
  EXPECT_EQ(outside.names(), kept);
}

TEST(OutputFolder, AFailedPublishSaysWhatIsNewAlready) {
  const TemporaryFolder outside;
  {
    OutputFolder folder(outside / "out");
    for (const char* name : {"a", "b", "c", "d"}) put(folder, name, "new");
    std::filesystem::create_directory(outside / "out/c");
    try {
      folder.publish();
      FAIL() << "c is a folder";
    } catch (const LocalFailure& failure) {
      const std::string text = failure.what();
      EXPECT_NE(text.find("out/c'"), std::string::npos) << text;
      EXPECT_NE(text.find("already a, b"), std::string::npos) << text;
    }
  }
  std::set<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(outside / "out")) left.insert(entry.path().filename());
  EXPECT_EQ(left, (std::set<std::string>{"a", "b", "c"}));
}

TEST(OutputFolder, SaysWhatStandsInTheWay) {
  const TemporaryFolder outside;
  const std::string file = outside.save("file", "");
  EXPECT_THROW(OutputFolder{file}, LocalFailure);
  EXPECT_THROW(OutputFolder{file + "/out"}, LocalFailure);
  OutputFolder folder(outside / "out");
  std::filesystem::create_directory(outside / "out/y.npy");
  EXPECT_THROW(folder.start("y.npy"), LocalFailure);
}

}  // namespace
}  // namespace syncbn::cli
