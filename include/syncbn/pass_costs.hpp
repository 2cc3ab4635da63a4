// SPDX-License-Identifier: MIT
// What a layer's training passes cost its rank, and where the time goes.
#pragma once

#include <cstdint>

namespace syncbn {

/// Sums over the passes of one kind that have been finished, on this rank. Times are of the wall clock, so a rank that has
/// to share its core measures that, too. A pass that ended in an error is not in them.
struct PassCosts {
  std::int64_t passes = 0;

  /// Reading the tensors for the sums over this rank's samples (behind a ReLU in backward: and writing the masked
  /// gradient), and what is made of the sums: mean, var and invstd, running statistics, dgamma and dbeta.
  double statistics_seconds = 0;
  /// Standing still for the message: handing it to the transport, waiting for the slowest rank, merging. What the
  /// program does between begin_*() and finish_*(), progress() included, is not in it. 0 in a group of one rank.
  double message_seconds = 0;
  /// Writing y, or dx (and a residual's gradient).
  double element_seconds = 0;

  /// What this rank gave the transport: one message a pass, header included. How often it goes over a wire is the
  /// transport's affair: an all-gather hands it to each of the other ranks. Of C channels, rounded up to 8 bytes:
  ///   Reduction::reproducible  120 + 54*C (f64 tensors: 120 + 86*C)
  ///   Reduction::fast           88 + 16*C
  /// and 0 in a group of one rank.
  std::int64_t message_bytes = 0;

  double seconds() const { return statistics_seconds + message_seconds + element_seconds; }
};

/// Of forward_train() and of backward() through its caches, in one or two calls. Not eval and frozen passes, which send
/// nothing, nor rounds that this rank answers in join().
struct LayerCosts {
  PassCosts forward;
  PassCosts backward;
};

}  // namespace syncbn
