// SPDX-License-Identifier: MIT
// Times the training batch norm of oneDNN 2.x, f32, one process: scripts/bench builds and runs it beside `syncbn
// bench`, whose lines of JSON it prints.
//
//   onednn_batch_norm SECONDS NxCxHxW,...      threads: OMP_NUM_THREADS
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include <dnnl.hpp>
#include <omp.h>

namespace {

using dnnl::memory;

constexpr float kEps = 1e-5f;
constexpr std::size_t kLeastRepetitions = 5;

/// "32x64x7x7" or "32x64".
memory::dims parse_shape(const std::string& text) {
  memory::dims extents;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, 'x');) extents.push_back(std::stoll(word));
  extents.resize(4, 1);
  return extents;
}

class BatchNormalization {
 public:
  BatchNormalization(const memory::dims& shape, memory::format_tag layout)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    const memory::desc tensor(shape, memory::data_type::f32, layout);
    // Scale and shift in one (2, C) tensor: oneDNN 2.6 has no fast path for two tensors.
    const memory::desc parameters({2, shape[1]}, memory::data_type::f32, memory::format_tag::nc);
    const auto flags = dnnl::normalization_flags::use_scale_shift;
    const dnnl::batch_normalization_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, tensor, kEps, flags}, engine_);
    const dnnl::batch_normalization_backward::primitive_desc backward(
        {dnnl::prop_kind::backward, tensor, tensor, kEps, flags}, engine_, forward);
    forward_ = dnnl::batch_normalization_forward(forward);
    backward_ = dnnl::batch_normalization_backward(backward);

    const memory x = filled(tensor, -1.0f, 1.0f);
    const memory mean = filled(forward.mean_desc(), 0.0f, 0.0f);
    const memory variance = filled(forward.variance_desc(), 0.0f, 0.0f);
    const memory scale_shift = filled(parameters, 0.5f, 1.5f);
    forward_arguments_ = {{DNNL_ARG_SRC, x},
                          {DNNL_ARG_SCALE_SHIFT, scale_shift},
                          {DNNL_ARG_DST, filled(tensor, 0.0f, 0.0f)},
                          {DNNL_ARG_MEAN, mean},
                          {DNNL_ARG_VARIANCE, variance}};
    backward_arguments_ = {{DNNL_ARG_SRC, x},
                           {DNNL_ARG_SCALE_SHIFT, scale_shift},
                           {DNNL_ARG_MEAN, mean},
                           {DNNL_ARG_VARIANCE, variance},
                           {DNNL_ARG_DIFF_DST, filled(tensor, -1.0f, 1.0f)},
                           {DNNL_ARG_DIFF_SRC, filled(tensor, 0.0f, 0.0f)},
                           {DNNL_ARG_DIFF_SCALE_SHIFT, filled(parameters, 0.0f, 0.0f)}};
  }

  void run_forward() {
    forward_.execute(stream_, forward_arguments_);
    stream_.wait();
  }
  /// Needs a forward pass before it.
  void run_backward() {
    backward_.execute(stream_, backward_arguments_);
    stream_.wait();
  }

 private:
  memory filled(const memory::desc& description, float low, float high) {
    memory result(description, engine_);
    auto* values = static_cast<float*>(result.get_data_handle());
    std::uniform_real_distribution<float> uniform(low, high);
    for (std::size_t i = 0; i < description.get_size() / sizeof(float); ++i) {
      values[i] = low == high ? low : uniform(random_);
    }
    return result;
  }

  dnnl::engine engine_;
  dnnl::stream stream_;
  std::minstd_rand random_{1};
  dnnl::primitive forward_, backward_;
  std::unordered_map<int, memory> forward_arguments_, backward_arguments_;
};

/// Repeats `run` for `seconds` after one that is not timed; prints the line.
void time_pass(const char* layout, const char* pass, const memory::dims& shape, double seconds,
               const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  };
  run();
  std::vector<double> times;
  for (const auto start = Clock::now(); times.size() < kLeastRepetitions || since(start) < 1e3 * seconds;) {
    const auto repetition = Clock::now();
    run();
    times.push_back(since(repetition));
  }
  std::sort(times.begin(), times.end());
  const dnnl_version_t& version = *dnnl_version();
  std::printf(
      "{\"who\":\"onednn-%d.%d.%d\",\"threads\":%d,\"layout\":\"%s\",\"shape\":[%lld,%lld,%lld,%lld],\"dtype\":\"f32\","
      "\"pass\":\"%s\",\"median_ms\":%.6f,\"min_ms\":%.6f}\n",
      version.major, version.minor, version.patch, omp_get_max_threads(), layout, static_cast<long long>(shape[0]),
      static_cast<long long>(shape[1]), static_cast<long long>(shape[2]), static_cast<long long>(shape[3]), pass,
      times[times.size() / 2], times.front());
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: onednn_batch_norm SECONDS NxCxHxW,...\n");
    return 2;
  }
  const double seconds = std::atof(argv[1]);
  std::istringstream words(argv[2]);
  for (std::string word; std::getline(words, word, ',');) {
    const memory::dims shape = parse_shape(word);
    for (const bool channels_last : {false, true}) {
      BatchNormalization layer(shape, channels_last ? memory::format_tag::nhwc : memory::format_tag::nchw);
      const char* layout = channels_last ? "nhwc" : "nchw";
      time_pass(layout, "forward", shape, seconds, [&] { layer.run_forward(); });
      time_pass(layout, "backward", shape, seconds, [&] { layer.run_backward(); });
    }
  }
}
