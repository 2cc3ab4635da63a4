// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "usage.hpp"

namespace syncbn::cli {
namespace {

const std::vector<std::string> kNames{"compare", "info", "normalize", "train", "verify"};

TEST(Suggestion, FindsTheNameThatWasMeant) {
  EXPECT_EQ(closest("normalise", kNames), "normalize");   // replaced
  EXPECT_EQ(closest("normalze", kNames), "normalize");    // left out
  EXPECT_EQ(closest("nnormalize", kNames), "normalize");  // put in
  EXPECT_EQ(closest("trian", kNames), "train");           // swapped
  EXPECT_EQ(closest("verify", kNames), "verify");
}

TEST(Suggestion, IsSilentWhenNothingIsNear) {
  EXPECT_EQ(closest("quarterly", kNames), std::nullopt);
  EXPECT_EQ(closest("", kNames), std::nullopt);
  EXPECT_EQ(closest("x", {}), std::nullopt);
}

}  // namespace
}  // namespace syncbn::cli
