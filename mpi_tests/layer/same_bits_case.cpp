// SPDX-License-Identifier: MIT
#include "layer/same_bits_case.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <sstream>

#include "support/compare.hpp"
#include "support/half_limits.hpp"
#include "support/inputs.hpp"

namespace syncbn::testing::bits {
namespace {

/// Numbers of one seed, drawn one after the other.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : seed_(seed) {}
  double uniform() { return inputs::uniform(seed_, counter_++); }
  Index below(Index n) { return static_cast<Index>(uniform() * static_cast<double>(n)); }
  Index between(Index low, Index high) { return low + below(high - low + 1); }
  bool chance(double p) { return uniform() < p; }
  template <class T>
  T pick(std::initializer_list<T> choices) {
    return *(choices.begin() + below(static_cast<Index>(choices.size())));
  }

 private:
  std::uint64_t seed_;
  std::uint64_t counter_ = 0;
};

/// Seeds of what is drawn for one seed must not meet.
enum Stream : std::uint64_t { kPlan = 1, kX, kDy, kChannelKinds, kNonFinite, kGamma, kBeta, kAssignment };
std::uint64_t seed_of(std::uint64_t seed, Stream stream, int step = 0) {
  return (seed * 64 + stream) * 64 + static_cast<std::uint64_t>(step);
}

std::vector<Index> random_spatial(Dice& dice) {
  const Index axes = dice.chance(0.4) ? 0 : dice.between(1, 3);
  std::vector<Index> extents(static_cast<std::size_t>(axes));
  for (Index& extent : extents) extent = dice.between(1, axes == 1 ? 40 : axes == 2 ? 8 : 4);
  return extents;
}

BatchNormOptions random_options(Dice& dice, DataType type) {
  BatchNormOptions options;
  options.num_features = dice.pick<Index>({1, 2, 3, 5, 8, 15, 16, 17, 24, 31, 32, 33, 48});
  options.parameter_type = parameter_type_for(type);
  options.eps = dice.pick<double>({1e-5, 1e-5, 0.0, 1e-3, 0.5});
  options.momentum = dice.pick<std::optional<double>>({0.1, 0.3, 0.0, 1.0, std::nullopt});
  options.affine = dice.chance(0.8);
  options.track_running_stats = dice.chance(0.9);
  options.unbiased_running_var = dice.chance(0.7);
  options.parameter_gradients = dice.chance(0.9) ? ParameterGradients::global : ParameterGradients::local;
  return options;
}

enum class Kind { ordinary, tails, cancelling, constant, zeros, subnormal, spread };

Kind random_kind(std::uint64_t seed, Index channel) {
  const double u = inputs::uniform(seed, static_cast<std::uint64_t>(channel));
  if (u < 0.50) return Kind::ordinary;
  if (u < 0.65) return Kind::tails;
  if (u < 0.72) return Kind::cancelling;
  if (u < 0.78) return Kind::constant;
  if (u < 0.84) return Kind::zeros;
  if (u < 0.90) return Kind::subnormal;
  return Kind::spread;
}

/// Near to a normal distribution, of variance 1: the sum of 12 uniform numbers.
double bell(Dice& dice) {
  double sum = -6.0;
  for (int i = 0; i < 12; ++i) sum += dice.uniform();
  return sum;
}

/// Exponents of the largest values, so that squares and their sums fit a double, and of values that are spread.
struct Limits {
  int largest, spread;
};
template <class T>
constexpr Limits kLimits = {120, 100};  // of f32 and bf16
template <>
constexpr Limits kLimits<double> = {480, 400};
template <>
constexpr Limits kLimits<float16> = {15, 12};

template <class T>
T draw(Kind kind, double center, int exponent, Dice& dice) {
  double value = center + std::ldexp(bell(dice), exponent);
  switch (kind) {
    case Kind::ordinary:
    case Kind::cancelling:
      break;
    case Kind::tails:
      if (dice.chance(0.03)) value = std::ldexp(value, static_cast<int>(dice.between(13, 66)));  // 1e4 to 1e20
      break;
    case Kind::constant:
      value = std::ldexp(1.1, exponent) + center;
      break;
    case Kind::zeros:
      value = dice.chance(0.5) ? 0.0 : -0.0;
      break;
    case Kind::subnormal:
      value = static_cast<double>(dice.between(-1000, 1000));
      return static_cast<T>(value * static_cast<double>(std::numeric_limits<T>::denorm_min()));
    case Kind::spread:
      // After `value` was drawn: in one expression the compiler would choose which is drawn first.
      value =
          std::ldexp(value - center, static_cast<int>(dice.between(-kLimits<T>.spread, kLimits<T>.spread)) - exponent);
      break;
  }
  const double limit = std::ldexp(1.0, kLimits<T>.largest);
  return static_cast<T>(std::clamp(value, -limit, limit));
}

template <class T>
Tensor<T> draw_tensor(const Plan& plan, std::uint64_t seed, double center, int exponent) {
  Tensor<T> tensor(plan.samples, plan.options.num_features, plan.spatial, plan.layout);
  Dice dice(seed);
  std::vector<Kind> kinds;
  for (Index c = 0; c < plan.options.num_features; ++c) kinds.push_back(random_kind(seed + kChannelKinds, c));
  for_each_element(tensor, [&](Index n, Index c, Index s) {
    const Kind kind = kinds[static_cast<std::size_t>(c)];
    const bool is_opposite = kind == Kind::cancelling && n % 2 != 0;
    tensor.at(n, c, s) = is_opposite ? static_cast<T>(-static_cast<double>(tensor.at(n - 1, c, s)))
                                     : draw<T>(kind, center, exponent, dice);
  });
  return tensor;
}

template <class T>
void spoil(Tensor<T>& tensor, Dice& dice) {
  if (tensor.values.empty()) return;
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double with_payload = std::nan("0x1234567890000");
  for (Index i = dice.between(1, 5); i > 0; --i) {
    const auto value = dice.pick<double>({nan, -nan, with_payload, -with_payload, inf, -inf});
    tensor.values[static_cast<std::size_t>(dice.below(static_cast<Index>(tensor.values.size())))] =
        static_cast<T>(value);
  }
}

void append(std::vector<double>& to, const ChannelVector& values) {
  for (Index c = 0; c < values.size(); ++c) to.push_back(values[c]);
}
void append(std::vector<double>& to, const std::vector<double>& values) {
  to.insert(to.end(), values.begin(), values.end());
}

/// The largest exponent of sigma, either way: 1e-30 to 1e30 for f32 and bf16, 1e-138 to 1e138 for f64.
int scale_reach(DataType type) { return type == DataType::f64 ? 460 : type == DataType::f16 ? 8 : 100; }

}  // namespace

std::string Plan::description() const {
  std::ostringstream text;
  text << "seed " << seed << ": " << name_of(type) << ", " << name_of(layout) << ", N " << samples << ", C "
       << options.num_features << ", spatial";
  for (const Index extent : spatial) text << " " << extent;
  text << ", sigma 2^" << scale_exponent << ", mean/sigma " << ratio << ", eps " << options.eps << ", " << steps
       << " steps" << (is_dx_over_dy ? ", dx over dy" : "") << (has_non_finite ? ", with non-finite values" : "");
  return text.str();
}

Plan random_plan(std::uint64_t seed, Size size) {
  Dice dice(seed_of(seed, kPlan));
  Plan plan;
  plan.seed = seed;
  plan.type = dice.pick<DataType>(
      {DataType::f32, DataType::f32, DataType::f32, DataType::f64, DataType::f64, DataType::bf16, DataType::f16});
  plan.options = random_options(dice, plan.type);
  plan.spatial = random_spatial(dice);
  plan.layout = dice.chance(0.5) ? Layout::channels_first : Layout::channels_last;
  plan.samples = dice.chance(0.04) ? 0 : dice.chance(0.1) ? 1 : dice.between(2, 64);
  const Index per_sample = std::accumulate(plan.spatial.begin(), plan.spatial.end(), plan.options.num_features,
                                           [](Index a, Index b) { return a * b; });
  const Index most = std::max<Index>(2, 6000 / per_sample);
  plan.samples = size == Size::small ? std::min(plan.samples, most) : 40000 / per_sample + plan.samples;
  plan.steps = static_cast<int>(dice.between(1, 3));
  if (dice.chance(0.5)) {
    const Index reach = scale_reach(plan.type);
    plan.scale_exponent = static_cast<int>(dice.between(-reach, reach));
  }
  plan.ratio = dice.pick<double>({0.0, 0.0, 1.0, -100.0, 1e4, 1e6});
  if (plan.scale_exponent > scale_reach(plan.type) - 5) plan.ratio = 0.0;
  plan.is_dx_over_dy = dice.chance(0.25);
  plan.has_non_finite = dice.chance(0.15);
  return plan;
}

template <class T>
GlobalBatch<T> batch_of(const Plan& plan, int step) {
  const double center = std::ldexp(plan.ratio, plan.scale_exponent);
  GlobalBatch<T> batch{draw_tensor<T>(plan, seed_of(plan.seed, kX, step), center, plan.scale_exponent),
                       draw_tensor<T>(plan, seed_of(plan.seed, kDy, step), 0.0, 0)};
  if (plan.has_non_finite) {
    Dice dice(seed_of(plan.seed, kNonFinite, step));
    spoil(dice.chance(0.7) ? batch.x : batch.dy, dice);
  }
  return batch;
}

std::vector<Samples> random_assignment(std::uint64_t seed, Index samples, int ranks) {
  Dice dice(seed_of(seed, kAssignment));
  Samples order(static_cast<std::size_t>(samples));
  std::iota(order.begin(), order.end(), Index{0});
  if (dice.chance(0.7)) {
    for (Index i = samples - 1; i > 0; --i) {
      std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(dice.between(0, i))]);
    }
  }
  std::vector<Index> counts;
  if (dice.chance(0.15)) {  // all on one rank, any
    counts.assign(static_cast<std::size_t>(ranks), 0);
    counts[static_cast<std::size_t>(dice.below(ranks))] = samples;
  } else {
    counts = inputs::split(inputs::kSplits[dice.below(5)], samples, ranks, seed);
  }
  std::vector<Samples> assignment;
  auto next = order.begin();
  for (const Index count : counts) {
    assignment.emplace_back(next, next + count);
    next += count;
  }
  return assignment;
}

namespace {

/// Some samples of a tensor, in memory that begins `misalignment` elements late.
template <class T>
class Shard {
 public:
  Shard(const Tensor<T>& whole, const Samples& samples, Index misalignment)
      : shape_(whole.shape), per_sample_(whole.shape.channels * whole.shape.positions), begin_(misalignment) {
    shape_.samples = static_cast<Index>(samples.size());
    memory_.resize(static_cast<std::size_t>(begin_ + shape_.element_count()));
    for (std::size_t i = 0; i < samples.size(); ++i) {
      std::copy_n(&whole.values[static_cast<std::size_t>(samples[i] * per_sample_)], per_sample_, sample(i));
    }
  }
  TensorView view() { return {memory_.data() + begin_, DataTypeOf<T>::value, shape_}; }
  void append_sample(std::size_t i, std::vector<unsigned char>& bytes) {
    const auto* first = reinterpret_cast<const unsigned char*>(sample(i));
    bytes.insert(bytes.end(), first, first + static_cast<std::size_t>(per_sample_) * sizeof(T));
  }

 private:
  T* sample(std::size_t i) { return memory_.data() + begin_ + static_cast<Index>(i) * per_sample_; }

  TensorShape shape_;
  Index per_sample_, begin_;
  std::vector<T> memory_;
};

BatchNormOptions options_with(const Plan& plan, int threads, Reduction reduction) {
  BatchNormOptions options = plan.options;
  options.threads = threads;
  options.reduction = reduction;
  return options;
}

/// A step of gradient descent, so that the next step's bits depend on this one's gradients.
void descend(ChannelVector& parameter, const ChannelVector& gradient) {
  for (Index c = 0; c < parameter.size(); ++c) parameter.set(c, parameter[c] - 0x1p-7 * gradient[c]);
}

}  // namespace

template <class T>
Trainee<T>::Trainee(const Plan& plan, const Communicator& group, int threads, Index misalignment, Reduction reduction)
    : plan_(plan), layer_(options_with(plan, threads, reduction), group), misalignment_(misalignment) {
  if (!plan.options.affine) return;
  const auto gamma = inputs::parameters(seed_of(plan.seed, kGamma), plan.options.num_features, 0.5, 1.0);
  const auto beta = inputs::parameters(seed_of(plan.seed, kBeta), plan.options.num_features, 0.0, 1.0);
  for (std::size_t c = 0; c < gamma.size(); ++c) {
    layer_.gamma().set(static_cast<Index>(c), gamma[c]);
    layer_.beta().set(static_cast<Index>(c), beta[c]);
  }
}

template <class T>
StepBytes Trainee<T>::step(const GlobalBatch<T>& batch, const Samples& samples) {
  Shard<T> x(batch.x, samples, misalignment_);
  Shard<T> dy(batch.dy, samples, misalignment_);
  Shard<T> y = x;
  Shard<T> other = dy;
  Shard<T>& dx = plan_.is_dx_over_dy ? dy : other;
  const BatchNormCache cache = layer_.forward_train(x.view(), y.view());
  const BatchNormGradients gradients = layer_.backward(cache, dy.view(), dx.view());

  StepBytes result;
  result.sample.resize(samples.size());
  for (std::size_t i = 0; i < samples.size(); ++i) {
    y.append_sample(i, result.sample[i]);
    dx.append_sample(i, result.sample[i]);
  }
  for (const auto* values : {&cache.mean, &cache.mean_lo, &cache.var, &cache.invstd}) append(result.channel, *values);
  if (gradients.scope == ParameterGradients::global) {
    append(result.channel, gradients.dgamma);
    append(result.channel, gradients.dbeta);
    descend(layer_.gamma(), gradients.dgamma);
    descend(layer_.beta(), gradients.dbeta);
  }
  for (const auto* values : {&layer_.running_mean(), &layer_.running_var(), &layer_.gamma(), &layer_.beta()}) {
    append(result.channel, *values);
  }
  result.channel.push_back(static_cast<double>(layer_.num_batches_tracked()));
  return result;
}

void Hash::add(const void* data, std::size_t bytes) {
  const auto* byte = static_cast<const unsigned char*>(data);
  for (std::size_t i = 0; i < bytes; ++i) value_ = (value_ ^ byte[i]) * 0x100000001b3u;
}

template GlobalBatch<float> batch_of<float>(const Plan&, int);
template GlobalBatch<double> batch_of<double>(const Plan&, int);
template GlobalBatch<bfloat16> batch_of<bfloat16>(const Plan&, int);
template GlobalBatch<float16> batch_of<float16>(const Plan&, int);
template class Trainee<float>;
template class Trainee<double>;
template class Trainee<bfloat16>;
template class Trainee<float16>;

}  // namespace syncbn::testing::bits
