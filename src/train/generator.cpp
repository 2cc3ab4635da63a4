// SPDX-License-Identifier: MIT
#include "generator.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "random.hpp"

namespace syncbn::train {

namespace {

constexpr Index kSide = 12;
constexpr int kStrokes = 3;

// Streams of random numbers under one seed.
enum Stream : std::uint64_t { kPrototypes = 0, kTrainSamples = 1, kTestSamples = 2 };

struct Point {
  double x = 0;
  double y = 0;
};

struct Stroke {
  Point from;
  Point to;
};

using Prototype = std::array<Stroke, kStrokes>;

/// From the pixel to the nearest point of the stroke.
double distance(const Stroke& stroke, Point pixel) {
  const double dx = stroke.to.x - stroke.from.x;
  const double dy = stroke.to.y - stroke.from.y;
  const double length2 = dx * dx + dy * dy + 1e-9;
  const double along = ((pixel.x - stroke.from.x) * dx + (pixel.y - stroke.from.y) * dy) / length2;
  const double t = std::clamp(along, 0.0, 1.0);
  const double ex = pixel.x - (stroke.from.x + t * dx);
  const double ey = pixel.y - (stroke.from.y + t * dy);
  return std::sqrt(ex * ex + ey * ey);
}

/// Ink of a stroke on a pixel: 1 on the line, 0 from `width` on.
double ink(const Stroke& stroke, Point pixel, double width) {
  return std::max(0.0, 1.0 - distance(stroke, pixel) / width);
}

/// Takes its numbers from a stream one after the other.
class Draw {
 public:
  explicit Draw(const CounterRandom& random) : random_(random) {}
  double in(double low, double high) { return random_.uniform(next_++, low, high); }
  Point point(double low, double high) {
    const double x = in(low, high);
    return {x, in(low, high)};
  }
  /// Mean 0, variance 1: the sum of three uniform numbers.
  double noise() {
    double sum = 0;
    for (int i = 0; i < 3; ++i) sum += in(-0.5, 0.5);
    return 2.0 * sum;
  }

 private:
  CounterRandom random_;
  std::uint64_t next_ = 0;
};

Prototype make_prototype(const CounterRandom& random) {
  Draw draw(random);
  Prototype prototype;
  for (Stroke& stroke : prototype) {
    stroke.from = draw.point(2.0, kSide - 3.0);
    stroke.to = draw.point(2.0, kSide - 3.0);
  }
  return prototype;
}

Point moved(Point point, Point shift, Point jitter) {
  return {point.x + shift.x + jitter.x, point.y + shift.y + jitter.y};
}

void draw_sample(const Prototype& prototype, const CounterRandom& random, std::uint8_t* pixels) {
  Draw draw(random);
  const Point shift = draw.point(-1.6, 1.6);
  Prototype strokes = prototype;
  for (Stroke& stroke : strokes) {
    stroke.from = moved(stroke.from, shift, draw.point(-1.1, 1.1));
    stroke.to = moved(stroke.to, shift, draw.point(-1.1, 1.1));
  }
  Stroke distractor;
  distractor.from = draw.point(0.0, kSide - 1.0);
  distractor.to = draw.point(0.0, kSide - 1.0);
  const double width = draw.in(1.0, 1.7);
  const double contrast = draw.in(0.35, 0.8);
  const double brightness = draw.in(0.05, 0.25);

  for (Index row = 0; row < kSide; ++row) {
    for (Index column = 0; column < kSide; ++column) {
      const Point pixel{static_cast<double>(column), static_cast<double>(row)};
      double value = 0.6 * ink(distractor, pixel, width);
      for (const Stroke& stroke : strokes) {
        value = std::max(value, ink(stroke, pixel, width));
      }
      const double grey = 255.0 * (brightness + contrast * value + 0.09 * draw.noise());
      pixels[row * kSide + column] = static_cast<std::uint8_t>(std::clamp(grey, 0.0, 255.0));
    }
  }
}

LabelledImages make_images(Index count, const std::array<Prototype, kClassCount>& prototypes,
                           const CounterRandom& samples) {
  LabelledImages images;
  images.count = count;
  images.shape = {1, kSide, kSide};
  images.pixels.resize(static_cast<std::size_t>(count * images.shape.size()));
  images.labels.resize(static_cast<std::size_t>(count));
  for (Index i = 0; i < count; ++i) {
    const auto label = static_cast<std::size_t>(i % kClassCount);
    images.labels[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(label);
    draw_sample(prototypes[label], samples.substream(static_cast<std::uint64_t>(i)),
                images.pixels.data() + i * images.shape.size());
  }
  return images;
}

}  // namespace

DataSet generate_strokes(const GeneratorOptions& options) {
  std::array<Prototype, kClassCount> prototypes;
  const CounterRandom classes(options.seed, kPrototypes);
  for (std::size_t label = 0; label < prototypes.size(); ++label) {
    prototypes[label] = make_prototype(classes.substream(label));
  }
  return {"built-in", make_images(options.train_count, prototypes, CounterRandom(options.seed, kTrainSamples)),
          make_images(options.test_count, prototypes, CounterRandom(options.seed, kTestSamples))};
}

}  // namespace syncbn::train
