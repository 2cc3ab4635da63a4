// SPDX-License-Identifier: MIT
// A step allocates nothing after the first one with a shape.
#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "layer/layer_case.hpp"

namespace {

std::atomic<long> allocations = 0;

void* counted(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}

}  // namespace

// All forms that the library can reach end here; MPI's own memory does not.
// Not inlined: where gcc inlines one of a pair, it takes the other for a mistake.
[[gnu::noinline]] void* operator new(std::size_t bytes) { return counted(bytes); }
[[gnu::noinline]] void* operator new[](std::size_t bytes) { return counted(bytes); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace syncbn::testing {
namespace {

struct Variant {
  std::vector<Index> spatial;
  Layout layout;
  Reduction reduction;
  Activation activation;
};

TEST(BatchNormAllocation, CounterCounts) {
  const long before = allocations;
  int* volatile kept = new int(1);  // volatile: else a compiler may leave both out
  EXPECT_EQ(allocations - before, 1);
  delete kept;
}

TEST(BatchNormAllocation, NoneAfterTheFirstStep) {
  const Variant variants[] = {
      {{}, Layout::channels_first, Reduction::reproducible, Activation::none},
      {{}, Layout::channels_first, Reduction::reproducible, Activation::relu},
      {{5, 5}, Layout::channels_first, Reduction::reproducible, Activation::none},
      {{5, 5}, Layout::channels_last, Reduction::reproducible, Activation::relu},
      {{5, 5}, Layout::channels_first, Reduction::fast, Activation::relu},
  };
  for (const Variant& variant : variants) {
    for (const int threads : {1, 3}) {
      auto layer_case = make_case<float>(
          {.seed = 501, .channels = 40, .spatial = variant.spatial, .layout = variant.layout, .offset = 1},
          inputs::split(inputs::Split::uneven, 70, world_size()));
      layer_case.options.name = "a name that does not fit into a short string";
      layer_case.options.reduction = variant.reduction;
      layer_case.options.activation = variant.activation;
      layer_case.options.threads = threads;
      layer_case.options.measures_costs = threads == 1;
      BatchNorm layer = make_layer(layer_case);
      SCOPED_TRACE(layer_case.trace());
      const Tensor<float> x = layer_case.my_x();
      const Tensor<float> dy = layer_case.my_dy();
      Tensor<float> y = zeros_like<float>(x);
      Tensor<float> dx = zeros_like<float>(x);
      BatchNormCache cache;
      BatchNormGradients gradients;
      const auto step = [&] {
        layer.forward_train(x.view(), y.view(), cache);
        layer.backward(cache, dy.view(), dx.view(), gradients);
        layer.backward(cache, dy.view(), TensorView(), gradients);
        layer.forward_eval(x.view(), y.view());
        layer.begin_forward_train(x.view(), y.view(), cache);
        layer.progress();
        layer.finish_forward_train();
        layer.begin_backward(cache, dy.view(), dx.view(), gradients);
        layer.progress();
        layer.finish_backward();
        layer.begin_backward_input(cache, dy.view(), dx.view());
        layer.finish_backward();
      };
      step();
      const long before = allocations;
      step();
      EXPECT_EQ(allocations - before, 0);
    }
  }
}

}  // namespace
}  // namespace syncbn::testing
