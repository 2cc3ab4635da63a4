// SPDX-License-Identifier: MIT
#include "sharding.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "errors.hpp"
#include "random.hpp"

namespace syncbn::train {

namespace {

constexpr std::uint64_t kMixStream = 0x4d495845;
constexpr std::uint64_t kDealStream = 0x4445414c;

constexpr const char* kDirichlet = "dirichlet:";

using ClassCounts = std::array<Index, kClassCount>;

/// Standard normal: Box & Muller 1958. Uses numbers `index` and `index` + 1.
double normal(const CounterRandom& random, std::uint64_t index) {
  const double radius = std::sqrt(-2 * std::log(1 - random.uniform(index)));
  return radius * std::cos(2 * std::numbers::pi * random.uniform(index + 1));
}

/// The natural logarithm of a gamma variate of scale 1.
/// Source: Marsaglia & Tsang 2000, "A simple method for generating gamma variables", ACM TOMS 26:363-372; for shapes below
/// 1 its last section: gamma(shape + 1) * uniform^(1 / shape).
double log_gamma_variate(double shape, const CounterRandom& random) {
  const bool is_small = shape < 1;
  const double d = (is_small ? shape + 1 : shape) - 1.0 / 3;
  const double c = 1 / (3 * std::sqrt(d));
  for (std::uint64_t index = 1;; index += 3) {  // one turn in 1.05 or less is the last
    const double x = normal(random, index);
    const double root = 1 + c * x;
    if (root <= 0) continue;
    const double v = root * root * root;
    const double log_u = std::log(1 - random.uniform(index + 2));
    if (log_u >= 0.5 * x * x + d * (1 - v + std::log(v))) continue;
    const double boost = is_small ? std::log(1 - random.uniform(0)) / shape : 0;
    return std::log(d) + std::log(v) + boost;
  }
}

ScaledNumber exp_of(double log_value) {
  const double log2_value = log_value / std::numbers::ln2;
  const double exponent = std::floor(log2_value);
  return {std::exp2(log2_value - exponent), exponent};
}

/// value / 2^exponent; what is too small for a double is 0.
double scaled(const ScaledNumber& value, double exponent) {
  constexpr double kSmallest = -1000;
  const double difference = value.exponent - exponent;
  return difference < kSmallest ? 0 : std::ldexp(value.mantissa, static_cast<int>(difference));
}

/// A class of which samples are left: its chance is in proportion to the mix and to how many there are. So equal numbers in
/// the mix make every sample equally likely.
std::size_t draw_class(const ClassMix& mix, const ClassCounts& left, double uniform) {
  double exponent = -std::numeric_limits<double>::infinity();
  for (std::size_t c = 0; c < mix.size(); ++c) {
    if (left[c] > 0) exponent = std::max(exponent, mix[c].exponent);
  }
  std::array<double, kClassCount> chances{};
  double sum = 0;
  for (std::size_t c = 0; c < mix.size(); ++c) {
    if (left[c] > 0) chances[c] = static_cast<double>(left[c]) * scaled(mix[c], exponent);
    sum += chances[c];
  }
  double rest = uniform * sum;
  std::size_t drawn = 0;
  for (std::size_t c = 0; c < mix.size(); ++c) {
    if (chances[c] <= 0) continue;
    drawn = c;
    if (rest < chances[c]) break;
    rest -= chances[c];
  }
  return drawn;
}

}  // namespace

Sharding Sharding::parse(const std::string& text) {
  if (text == "iid") return {Kind::iid, 0};
  if (text == "by-class") return {Kind::by_class, 0};
  if (text.rfind(kDirichlet, 0) == 0) {
    double alpha = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + std::char_traits<char>::length(kDirichlet), end, alpha);
    if (error == std::errc() && stop == end && std::isfinite(alpha) && alpha > 0) return {Kind::dirichlet, alpha};
    throw UsageError("'" + text + "' needs a positive finite number behind the colon, like dirichlet:0.3");
  }
  throw UsageError("'" + text + "' is not one of iid, by-class and dirichlet:ALPHA");
}

std::string Sharding::name() const {
  switch (kind) {
    case Kind::iid:
      return "iid";
    case Kind::by_class:
      return "by-class";
    case Kind::dirichlet:
      break;
  }
  std::array<char, 32> number{};  // the shortest that is read back as alpha
  return kDirichlet +
         std::string(number.data(), std::to_chars(number.data(), number.data() + number.size(), alpha).ptr);
}

ClassMixes draw_class_mixes(double alpha, std::uint64_t seed) {
  constexpr double kSmallestShape = 1e-300;  // logarithms of uniform numbers divided by it are finite
  const CounterRandom random(seed, kMixStream);
  ClassMixes mixes;
  std::uint64_t stream = 0;
  for (ClassMix& mix : mixes) {
    for (ScaledNumber& number : mix) {
      number = exp_of(log_gamma_variate(std::max(alpha, kSmallestShape), random.substream(stream++)));
    }
  }
  return mixes;
}

void SampleDealer::deal(std::vector<Index>& order, Index batch, Index epoch) const {
  if (sharding_.kind == Sharding::Kind::iid) return;
  const CounterRandom random = CounterRandom(seed_, kDealStream).substream(static_cast<std::uint64_t>(epoch));
  const auto count = static_cast<Index>(order.size());
  for (Index first = 0; first < count; first += batch) {
    const Index size = std::min(batch, count - first);
    if (sharding_.kind == Sharding::Kind::by_class) {
      sort_by_class(order.data() + first, size);
    } else {
      deal_by_mixes(order.data() + first, size, random.substream(static_cast<std::uint64_t>(first / batch)));
    }
  }
}

void SampleDealer::sort_by_class(Index* samples, Index count) const {
  std::stable_sort(samples, samples + count, [this](Index a, Index b) {
    return labels_[static_cast<std::size_t>(a)] < labels_[static_cast<std::size_t>(b)];
  });
}

void SampleDealer::deal_by_mixes(Index* samples, Index count, const CounterRandom& random) const {
  sort_by_class(samples, count);
  const std::vector<Index> sorted(samples, samples + count);
  ClassCounts left{};
  for (const Index sample : sorted) ++left[labels_[static_cast<std::size_t>(sample)]];
  ClassCounts next{};  // of each class, in `sorted`
  std::exclusive_scan(left.begin(), left.end(), next.begin(), Index{0});

  std::vector<Index> places(sorted.size());  // in turns by chance, so that no unit has the first choice
  std::iota(places.begin(), places.end(), Index{0});
  shuffle(places, random);
  const auto first_draw = static_cast<std::uint64_t>(count) + 1;  // the shuffle has used those before
  for (std::size_t turn = 0; turn < places.size(); ++turn) {
    const Index unit = unit_of_sample(count, places[turn]);
    const std::size_t drawn =
        draw_class(mixes_[static_cast<std::size_t>(unit)], left, random.uniform(first_draw + turn));
    samples[places[turn]] = sorted[static_cast<std::size_t>(next[drawn]++)];
    --left[drawn];
  }
}

}  // namespace syncbn::train
