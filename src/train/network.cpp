// SPDX-License-Identifier: MIT
#include "network.hpp"

#include <cmath>
#include <limits>

#include "convolution.hpp"
#include "elementwise.hpp"
#include "errors.hpp"
#include "linear.hpp"
#include "norm.hpp"
#include "random.hpp"
#include "residual_block.hpp"

namespace syncbn::train {

namespace {

constexpr std::uint64_t kWeightStream = 0x57454947;  // apart from the streams of other users of the seed
constexpr std::uint64_t kNudgeStream = 0x4e554447;

/// Linear - BN - ReLU.
template <class T>
void add_linear_block(Sequential<T>& net, const std::string& number, Index inputs, Index outputs,
                      const NormFactory& make_norm) {
  net.add(std::make_unique<Linear<T>>("linear" + number, inputs, outputs, LinearKind::hidden));
  net.add(std::make_unique<Norm<T>>(make_norm(outputs, "bn" + number, Activation::none)));
  net.add(std::make_unique<Relu<T>>());
}

/// Convolution - BN - ReLU. Returns the shape that it gives.
template <class T>
ImageShape add_convolution_block(Sequential<T>& net, const std::string& number, const ImageShape& input, Index outputs,
                                 const NormFactory& make_norm) {
  auto convolution = std::make_unique<Convolution<T>>("conv" + number, input, outputs);
  const ImageShape shape = convolution->output_shape();
  net.add(std::move(convolution));
  net.add(std::make_unique<Norm<T>>(make_norm(outputs, "bn" + number, Activation::none)));
  net.add(std::make_unique<Relu<T>>());
  return shape;
}

template <class T>
std::unique_ptr<Module<T>> make_mlp(const ImageShape& input, Index classes, const NormFactory& make_norm) {
  auto net = std::make_unique<Sequential<T>>();
  add_linear_block(*net, "1", input.size(), 128, make_norm);
  add_linear_block(*net, "2", 128, 64, make_norm);
  net->add(std::make_unique<Linear<T>>("linear3", 64, classes, LinearKind::output));
  return net;
}

template <class T>
std::unique_ptr<Module<T>> make_cnn(const ImageShape& input, Index classes, const NormFactory& make_norm) {
  if (input.height < 4 || input.width < 4) {
    throw UsageError("network cnn needs images of at least 4 x 4 pixels, these have " + std::to_string(input.height) +
                     " x " + std::to_string(input.width));
  }
  auto net = std::make_unique<Sequential<T>>();
  ImageShape shape = pooled(add_convolution_block(*net, "1", input, 16, make_norm));
  net->add(std::make_unique<MaxPool<T>>());
  shape = add_convolution_block(*net, "2", shape, 32, make_norm);
  // Means, not maxima: hundreds of large inputs to the last layer would ask for a much smaller learning rate.
  do {
    net->add(std::make_unique<AveragePool<T>>());
    shape = pooled(shape);
  } while (shape.height > 6 && shape.width > 6);
  net->add(std::make_unique<Linear<T>>("linear3", shape.size(), classes, LinearKind::output));
  return net;
}

/// Source: He et al. 2015, arXiv:1512.03385, section 4.2 with n = 1, the smallest of its networks for small images.
template <class T>
std::unique_ptr<Module<T>> make_resnet(const ImageShape& input, Index classes, const NormFactory& make_norm) {
  auto net = std::make_unique<Sequential<T>>();
  auto stem = std::make_unique<Convolution<T>>("conv1", input, 16);
  ImageShape shape = stem->output_shape();
  net->add(std::move(stem));
  net->add(std::make_unique<Norm<T>>(make_norm(shape.channels, "bn1", Activation::relu)));
  Index stride = 1;
  int number = 1;
  for (const Index outputs : {16, 32, 64}) {
    auto block =
        std::make_unique<ResidualBlock<T>>("block" + std::to_string(number++), shape, outputs, stride, make_norm);
    shape = block->output_shape();
    net->add(std::move(block));
    stride = 2;
  }
  net->add(std::make_unique<GlobalAveragePool<T>>());
  net->add(std::make_unique<Linear<T>>("linear", shape.channels, classes, LinearKind::output));
  return net;
}

template <class T>
struct NetworkKind {
  const char* name;
  std::unique_ptr<Module<T>> (*make)(const ImageShape& input, Index classes, const NormFactory& make_norm);
};

template <class T>
constexpr NetworkKind<T> kNetworks[] = {{"mlp", make_mlp<T>}, {"cnn", make_cnn<T>}, {"resnet", make_resnet<T>}};

template <class T>
const NetworkKind<T>* find_network(const std::string& name) {
  for (const NetworkKind<T>& kind : kNetworks<T>) {
    if (name == kind.name) return &kind;
  }
  return nullptr;
}

}  // namespace

bool is_network(const std::string& name) { return find_network<float>(name) != nullptr; }

std::string network_names() {
  std::string names;
  for (const NetworkKind<float>& kind : kNetworks<float>) names += (names.empty() ? "" : ", ") + std::string(kind.name);
  return names;
}

template <class T>
Network<T> make_network(const std::string& name, const ImageShape& input, Index classes, const NormFactory& make_norm) {
  Network<T> network;
  network.root = find_network<T>(name)->make(input, classes, make_norm);
  network.root->collect(network.trainables);
  return network;
}

template <class T>
void initialize(Network<T>& network, std::uint64_t seed) {
  const CounterRandom weights(seed, kWeightStream);
  std::uint64_t stream = 0;
  for (Parameter<T>* parameter : network.trainables.parameters) {
    const CounterRandom random = weights.substream(stream++);
    if (parameter->initial_bound == 0) continue;
    const double bound = parameter->initial_bound;
    for (Index i = 0; i < parameter->size; ++i) {
      parameter->values[i] = static_cast<T>(random.uniform(static_cast<std::uint64_t>(i), -bound, bound));
    }
  }
}

template <class T>
void nudge_weights(Network<T>& network, std::uint64_t seed) {
  const CounterRandom weights(seed, kNudgeStream);
  std::uint64_t stream = 0;
  for (Parameter<T>* parameter : network.trainables.parameters) {
    const CounterRandom random = weights.substream(stream++);
    if (parameter->initial_bound == 0) continue;
    for (Index i = 0; i < parameter->size; ++i) {
      const bool up = random.bits(static_cast<std::uint64_t>(i)) & 1u;
      const T end = up ? std::numeric_limits<T>::infinity() : -std::numeric_limits<T>::infinity();
      parameter->values[i] = std::nextafter(parameter->values[i], end);
    }
  }
}

template Network<float> make_network(const std::string&, const ImageShape&, Index, const NormFactory&);
template Network<double> make_network(const std::string&, const ImageShape&, Index, const NormFactory&);
template void initialize(Network<float>&, std::uint64_t);
template void initialize(Network<double>&, std::uint64_t);
template void nudge_weights(Network<float>&, std::uint64_t);
template void nudge_weights(Network<double>&, std::uint64_t);

}  // namespace syncbn::train
