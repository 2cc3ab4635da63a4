// SPDX-License-Identifier: MIT
// Tests with a fault each, for verdict_test.sh to select one by one.
#include <chrono>
#include <cstdlib>
#include <thread>

#include <gtest/gtest.h>
#include <unistd.h>

namespace {

TEST(Faulty, HasNoFault) { SUCCEED(); }
TEST(Faulty, Fails) { FAIL() << "as it should"; }
TEST(Faulty, ExitsWithZero) { std::exit(0); }
TEST(Faulty, ExitsWithZeroAtOnce) { ::_exit(0); }
TEST(Faulty, Hangs) { std::this_thread::sleep_for(std::chrono::hours(1)); }
TEST(Faulty, IsSkipped) { GTEST_SKIP() << "as it should"; }

}  // namespace
