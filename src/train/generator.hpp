// SPDX-License-Identifier: MIT
// Images to train on when there are none at hand.
#pragma once

#include <cstdint>

#include "dataset.hpp"

namespace syncbn::train {

struct GeneratorOptions {
  Index train_count = 3000;
  Index test_count = 1000;
  std::uint64_t seed = 20;
};

/// Ten classes of 12 x 12 grey images. A class is three strokes; a sample moves and bends them, changes contrast and
/// brightness, adds a faint stroke that means nothing, and noise.
///
/// Sample i depends on (seed, i) alone: the same bytes on every rank and machine (additions, products, quotients and
/// square roots of doubles only). Local.
DataSet generate_strokes(const GeneratorOptions& options);

}  // namespace syncbn::train
