// SPDX-License-Identifier: MIT
#include <string>

#include <gtest/gtest.h>

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
