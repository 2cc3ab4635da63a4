// SPDX-License-Identifier: MIT
#include "agree.hpp"

#include <new>
#include <string>

#include <gtest/gtest.h>

namespace syncbn::cli {
namespace {

const MPI_Comm kWorld = MPI_COMM_WORLD;

/// What together() throws here; "" if nothing.
std::string text_after(const std::function<void()>& work, ExitCode* code = nullptr) {
  try {
    together(kWorld, work);
  } catch (const AgreedFailure& failure) {
    if (code != nullptr) *code = failure.code();
    return failure.what();
  }
  return "";
}

/// How a failure on `rank` only is marked.
std::string mark(int rank) {
  const int size = size_of(kWorld);
  return size == 1 ? "" : " (rank " + std::to_string(rank) + " of " + std::to_string(size) + ")";
}

TEST(Agree, NoFailureThrowsNothing) {
  EXPECT_EQ(text_after([] {}), "");
}

TEST(Agree, FailureOnOneRankIsThrownOnAll) {
  for (int culprit = 0; culprit < size_of(kWorld); ++culprit) {
    ExitCode code = kOk;
    const std::string text = text_after(
        [&] {
          if (rank_of(kWorld) == culprit) throw LocalFailure(kBadData, "no luck");
        },
        &code);
    EXPECT_EQ(text, "no luck" + mark(culprit));
    EXPECT_EQ(code, kBadData);
  }
}

TEST(Agree, LowestRankSpeaksAndACommonFailureNamesNoRank) {
  const std::string text = text_after([] { throw LocalFailure(kUsage, "I am " + std::to_string(rank_of(kWorld))); });
  EXPECT_EQ(text, "I am 0");
  const int last = size_of(kWorld) - 1;
  if (last < 2) return;
  EXPECT_EQ(text_after([] {
              if (rank_of(kWorld) > 0) throw LocalFailure(kUsage, "I am " + std::to_string(rank_of(kWorld)));
            }),
            "I am 1" + mark(1));
}

TEST(Agree, LibraryErrorsAndLackOfMemoryAreFailuresToo) {
  ExitCode code = kOk;
  EXPECT_EQ(text_after([] { throw ShapeError("too wide"); }, &code), "too wide");
  EXPECT_EQ(code, kBadData);
  EXPECT_EQ(text_after([] { throw OptionError("too small"); }, &code), "too small");
  EXPECT_EQ(code, kUsage);
  EXPECT_EQ(text_after([] { throw std::bad_alloc(); }, &code), "out of memory");
  EXPECT_EQ(code, kEnvironment);
}

TEST(Agree, MpiErrorsPassThrough) {
  EXPECT_THROW(together(kWorld, [] { throw MpiError("broken"); }), MpiError);
}

TEST(Agree, OneRankWorksForAll) {
  int calls = 0;
  const int last = size_of(kWorld) - 1;
  together_on(last, kWorld, [&] { ++calls; });
  EXPECT_EQ(calls, rank_of(kWorld) == last ? 1 : 0);
  EXPECT_THROW(together_on(last, kWorld, [] { throw LocalFailure(kBadData, ""); }), AgreedFailure);
}

TEST(Agree, LongAndEmptyTextsTravel) {
  EXPECT_EQ(text_after([] { throw LocalFailure(kBadData, std::string(100000, 'x')); }), std::string(100000, 'x'));
  ExitCode code = kOk;
  EXPECT_EQ(text_after([] { throw LocalFailure(kBadData, ""); }, &code), "");
  EXPECT_EQ(code, kBadData);
}

}  // namespace
}  // namespace syncbn::cli
