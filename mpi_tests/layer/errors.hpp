// SPDX-License-Identifier: MIT
// Catching the library's errors as values, so that all ranks can compare theirs.
#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/compare.hpp"
#include "syncbn/error.hpp"

namespace syncbn::testing {

/// code = none if nothing was thrown.
struct Caught {
  ErrorCode code = ErrorCode::none;
  std::string text;
};

template <class Call>
Caught error_of(Call&& call) {
  try {
    call();
  } catch (const ShapeError& e) {
    return {ErrorCode::shape, e.what()};
  } catch (const OptionError& e) {
    return {ErrorCode::option, e.what()};
  } catch (const StateError& e) {
    return {ErrorCode::state, e.what()};
  } catch (const MismatchError& e) {
    return {ErrorCode::mismatch, e.what()};
  } catch (const NonFiniteError& e) {
    return {ErrorCode::non_finite, e.what()};
  } catch (const MpiError& e) {
    return {ErrorCode::mpi, e.what()};
  } catch (const TimeoutError& e) {
    return {ErrorCode::timeout, e.what()};
  }
  return {};
}

/// The same class and the same sentence on all ranks; it contains every fragment. Collective over MPI_COMM_WORLD.
inline void expect_same_error_everywhere(const Caught& caught, ErrorCode code,
                                         const std::vector<std::string>& fragments) {
  EXPECT_EQ(caught.code, code) << "text: " << caught.text;
  EXPECT_TRUE(is_same_on_all_ranks(caught.text)) << "this rank's text: " << caught.text;
  for (const std::string& fragment : fragments) {
    EXPECT_NE(caught.text.find(fragment), std::string::npos) << "'" << fragment << "' is not in: " << caught.text;
  }
}

/// "(rank 3 of 8)"; nothing in a group of one, where no other rank needs to be told apart.
inline std::string of_rank(int rank) {
  if (world_size() == 1) return {};
  return "(rank " + std::to_string(rank) + " of " + std::to_string(world_size()) + ")";
}

}  // namespace syncbn::testing
