// SPDX-License-Identifier: MIT
// The C interface against the C++ one, byte by byte, and its errors.
#include <cmath>
#include <memory>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/layer_case.hpp"
#include "syncbn/syncbn.h"

namespace syncbn::testing {
namespace {

struct Destroy {
  void operator()(syncbn_communicator* c) const { syncbn_communicator_destroy(c); }
  void operator()(syncbn_layer* l) const { syncbn_layer_destroy(l); }
  void operator()(syncbn_cache* c) const { syncbn_cache_destroy(c); }
};
using CCommunicator = std::unique_ptr<syncbn_communicator, Destroy>;
using CLayer = std::unique_ptr<syncbn_layer, Destroy>;
using CCache = std::unique_ptr<syncbn_cache, Destroy>;

#define EXPECT_OK(call) EXPECT_EQ((call), SYNCBN_OK) << syncbn_last_error()
#define ASSERT_OK(call) ASSERT_EQ((call), SYNCBN_OK) << syncbn_last_error()

/// The bytes of MPI_COMM_WORLD's all-gather, for a communicator that has not heard of MPI.
int32_t gather(void* context, const void* mine, size_t bytes, void* all) {
  auto* calls = static_cast<int*>(context);
  if (*calls == -1) return 17;
  ++*calls;
  return MPI_Allgather(mine, static_cast<int>(bytes), MPI_BYTE, all, static_cast<int>(bytes), MPI_BYTE, MPI_COMM_WORLD);
}

int32_t fortran_world() { return static_cast<int32_t>(MPI_Comm_c2f(MPI_COMM_WORLD)); }

CCommunicator world() {
  syncbn_communicator* made = nullptr;
  EXPECT_OK(syncbn_communicator_create(fortran_world(), nullptr, &made));
  return CCommunicator(made);
}
CCommunicator world_by_callback(int& calls) {
  syncbn_communicator* made = nullptr;
  EXPECT_OK(syncbn_communicator_from_callback(world_rank(), world_size(), gather, &calls, nullptr, &made));
  return CCommunicator(made);
}
CCache new_cache() {
  syncbn_cache* made = nullptr;
  EXPECT_OK(syncbn_cache_create(&made));
  return CCache(made);
}

syncbn_layer_options options_for(const BatchNormOptions& from) {
  syncbn_layer_options options;
  syncbn_layer_options_init(&options, sizeof options);
  options.num_features = from.num_features;
  options.eps = from.eps;
  options.parameter_type = static_cast<int32_t>(from.parameter_type);
  options.activation = static_cast<int32_t>(from.activation);
  options.name = from.name.c_str();
  return options;
}

CLayer new_layer(const syncbn_layer_options& options, const CCommunicator& communicator) {
  syncbn_layer* made = nullptr;
  EXPECT_OK(syncbn_layer_create(&options, communicator.get(), &made));
  return CLayer(made);
}

/// A tensor as DLPack would describe it: extents (N, C, *spatial), strides of its memory.
template <class T>
struct Described {
  std::vector<Index> shape, strides;
  syncbn_tensor tensor;

  explicit Described(Tensor<T>& from) {
    const TensorShape& s = from.shape;
    shape = {s.samples, s.channels, s.positions};
    strides = s.layout == Layout::channels_last ? std::vector<Index>{s.channels * s.positions, 1, s.channels}
                                                : std::vector<Index>{s.channels * s.positions, s.positions, 1};
    tensor = {from.values.data(), static_cast<int32_t>(DataTypeOf<T>::value), 3, shape.data(), strides.data()};
  }
  const syncbn_tensor* operator&() const { return &tensor; }
};

template <class T>
LayerCase<T> a_case(Layout layout, std::uint64_t seed = 71) {
  std::vector<Index> counts;
  for (int r = 0; r < world_size(); ++r) counts.push_back(r == 1 ? 0 : 2 + r % 3);
  auto made = make_case<T>({.seed = seed, .channels = 5, .spatial = {6}, .layout = layout, .offset = 3}, counts);
  made.options.name = "c.bn";
  return made;
}

/// gamma, beta and running statistics that the caller owns.
template <class T>
struct Owned {
  std::vector<T> gamma, beta, running_mean, running_var;

  explicit Owned(const LayerCase<T>& from) : running_mean(5, T{0}), running_var(5, T{1}) {
    for (const double g : from.gamma) gamma.push_back(static_cast<T>(g));
    for (const double b : from.beta) beta.push_back(static_cast<T>(b));
  }
  void bind(syncbn_layer* layer) {
    EXPECT_OK(syncbn_layer_bind(layer, SYNCBN_GAMMA, gamma.data()));
    EXPECT_OK(syncbn_layer_bind(layer, SYNCBN_BETA, beta.data()));
    EXPECT_OK(syncbn_layer_bind(layer, SYNCBN_RUNNING_MEAN, running_mean.data()));
    EXPECT_OK(syncbn_layer_bind(layer, SYNCBN_RUNNING_VAR, running_var.data()));
  }
};

enum class Calls { blocking, halves };

template <class T>
void expect_bytes_of_cpp(Layout layout, const CCommunicator& communicator, Calls calls) {
  auto layer_case = a_case<T>(layout);
  SCOPED_TRACE(layer_case.trace());
  BatchNorm wanted_layer = make_layer(layer_case);
  const StepResult<T> wanted = run_step(wanted_layer, layer_case);

  const CLayer layer = new_layer(options_for(layer_case.options), communicator);
  ASSERT_NE(layer, nullptr);
  Owned<T> owned(layer_case);
  owned.bind(layer.get());
  const CCache cache = new_cache();
  Tensor<T> y = zeros_like<T>(layer_case.my_x());
  Tensor<T> dx = zeros_like<T>(layer_case.my_x());
  const Described<T> x_view(layer_case.my_x()), y_view(y), dy_view(layer_case.my_dy()), dx_view(dx);
  std::vector<T> dgamma(5), dbeta(5);
  if (calls == Calls::blocking) {
    ASSERT_OK(syncbn_layer_forward_train(layer.get(), &x_view, &y_view, nullptr, cache.get()));
    ASSERT_OK(
        syncbn_layer_backward(layer.get(), cache.get(), &dy_view, &dx_view, nullptr, dgamma.data(), dbeta.data()));
  } else {
    ASSERT_OK(syncbn_layer_begin_forward_train(layer.get(), &x_view, &y_view, nullptr, cache.get()));
    ASSERT_OK(syncbn_layer_progress(layer.get(), nullptr));
    ASSERT_OK(syncbn_layer_finish_forward_train(layer.get()));
    ASSERT_OK(syncbn_layer_begin_backward(layer.get(), cache.get(), &dy_view, &dx_view, nullptr, dgamma.data(),
                                          dbeta.data()));
    ASSERT_OK(syncbn_layer_finish_backward(layer.get()));
  }

  EXPECT_TRUE(same_bits(y.values, wanted.y.values));
  EXPECT_TRUE(same_bits(dx.values, wanted.dx.values));
  const double* mean = nullptr;
  int64_t size = 0, count = 0, batches = 0;
  EXPECT_OK(syncbn_cache_statistics(cache.get(), SYNCBN_MEAN, &mean, &size));
  EXPECT_TRUE(same_bits(std::vector<double>(mean, mean + size), wanted.cache.mean));
  EXPECT_OK(syncbn_cache_count(cache.get(), &count));
  EXPECT_EQ(count, wanted.cache.count);
  EXPECT_OK(syncbn_layer_num_batches_tracked(layer.get(), &batches));
  EXPECT_EQ(batches, 1);
  for (Index c = 0; c < 5; ++c) {
    const auto i = static_cast<std::size_t>(c);
    EXPECT_EQ(dgamma[i], wanted.gradients.dgamma[c]);
    EXPECT_EQ(dbeta[i], wanted.gradients.dbeta[c]);
    EXPECT_EQ(owned.running_mean[i], wanted_layer.running_mean()[c]);
    EXPECT_EQ(owned.running_var[i], wanted_layer.running_var()[c]);
  }
}

TEST(CInterface, GivesTheBytesOfTheCppOne) {
  const CCommunicator mpi = world();
  int calls = 0;
  const CCommunicator callback = world_by_callback(calls);
  for (const Layout layout : {Layout::channels_first, Layout::channels_last}) {
    for (const Calls how : {Calls::blocking, Calls::halves}) {
      expect_bytes_of_cpp<float>(layout, mpi, how);
      expect_bytes_of_cpp<double>(layout, mpi, how);
      expect_bytes_of_cpp<float>(layout, callback, how);
    }
  }
  if (world_size() > 1) {
    EXPECT_GE(calls, 8);
  }
}

// Bound memory is what the next call sees, eval included; unbinding keeps the last values.
TEST(CInterface, BoundStateIsTheCallers) {
  auto layer_case = a_case<float>(Layout::channels_first);
  const CLayer layer = new_layer(options_for(layer_case.options), world());
  Owned<float> owned(layer_case);
  owned.bind(layer.get());
  void* data = nullptr;
  EXPECT_OK(syncbn_layer_state(layer.get(), SYNCBN_GAMMA, &data));
  EXPECT_EQ(data, owned.gamma.data());

  owned.gamma.assign(5, 0.0f);
  owned.beta.assign(5, 42.0f);
  Tensor<float> y = zeros_like<float>(layer_case.my_x());
  const Described<float> x_view(layer_case.my_x()), y_view(y);
  ASSERT_OK(syncbn_layer_forward_eval(layer.get(), &x_view, &y_view, nullptr));
  for (const float v : y.values) EXPECT_EQ(v, 42.0f);

  EXPECT_OK(syncbn_layer_bind(layer.get(), SYNCBN_BETA, nullptr));
  EXPECT_OK(syncbn_layer_state(layer.get(), SYNCBN_BETA, &data));
  ASSERT_NE(data, owned.beta.data());
  EXPECT_EQ(static_cast<float*>(data)[4], 42.0f);
}

// A rank's wrong tensor: the same error on all, and nobody's bound memory has changed.
TEST(CInterface, AWrongTensorOfOneRankIsEveryonesError) {
  for (int culprit = 0; culprit < world_size(); ++culprit) {
    for (int fault = 0; fault < 3; ++fault) {
      auto layer_case = a_case<float>(Layout::channels_first);
      const CLayer layer = new_layer(options_for(layer_case.options), world());
      Owned<float> owned(layer_case);
      owned.bind(layer.get());
      const CCache cache = new_cache();
      Tensor<float> y = zeros_like<float>(layer_case.my_x());
      const Described<float> x_view(layer_case.my_x());
      const Described<float> y_view(y);
      syncbn_tensor x = x_view.tensor;
      const int64_t gap[] = {31, 6, 1};
      const int64_t two_samples[] = {2, 5, 6};
      if (world_rank() == culprit) {
        if (fault == 0) x.shape = two_samples, x.strides = gap;
        if (fault == 1) x.dtype = 9;
        if (fault == 2) x.ndim = 1;
      }
      const char* fragments[] = {"x is not dense", "x has an unknown element type", "x has less than 2 dimensions"};
      const syncbn_status status = syncbn_layer_forward_train(layer.get(), &x, &y_view, nullptr, cache.get());
      expect_same_error_everywhere({static_cast<ErrorCode>(status), syncbn_last_error()}, ErrorCode::shape,
                                   {"[BatchNorm 'c.bn' forward]", fragments[fault], of_rank(culprit)});
      EXPECT_EQ(owned.running_mean, std::vector<float>(5, 0.0f));
    }
  }
}

TEST(CInterface, JoinUpdatesBoundState) {
  auto layer_case = a_case<float>(Layout::channels_first);
  const CCommunicator communicator = world();
  const CLayer layer = new_layer(options_for(layer_case.options), communicator);
  Owned<float> owned(layer_case);
  owned.bind(layer.get());
  const CCache cache = new_cache();
  Tensor<float> y = zeros_like<float>(layer_case.my_x());
  const Described<float> x_view(layer_case.my_x()), y_view(y);
  if (world_rank() == 0) {
    ASSERT_OK(syncbn_layer_forward_train(layer.get(), &x_view, &y_view, nullptr, cache.get()));
  }
  int32_t last = -1;
  ASSERT_OK(syncbn_communicator_join(communicator.get(), &last));
  EXPECT_EQ(last, 0);
  EXPECT_NE(owned.running_mean[0], 0.0f);
  EXPECT_TRUE(is_same_on_all_ranks(std::string(reinterpret_cast<const char*>(owned.running_mean.data()), 20)));
}

TEST(CInterface, FailingCallbackIsAnMpiError) {
  int calls = 0;
  const CCommunicator communicator = world_by_callback(calls);
  auto layer_case = a_case<float>(Layout::channels_first);
  const CLayer layer = new_layer(options_for(layer_case.options), communicator);
  calls = -1;
  const CCache cache = new_cache();
  Tensor<float> y = zeros_like<float>(layer_case.my_x());
  const Described<float> x_view(layer_case.my_x()), y_view(y);
  const syncbn_status status = syncbn_layer_forward_train(layer.get(), &x_view, &y_view, nullptr, cache.get());
  if (world_size() == 1) {
    EXPECT_EQ(status, SYNCBN_OK);
  } else {
    EXPECT_EQ(status, SYNCBN_ERROR_MPI);
    EXPECT_NE(std::string(syncbn_last_error()).find("it returned 17"), std::string::npos) << syncbn_last_error();
  }
}

TEST(CInterface, GroupsAreThoseOfTheCppOne) {
  syncbn_communicator* made = nullptr;
  ASSERT_OK(syncbn_communicator_groups_of(2, fortran_world(), nullptr, &made));
  const CCommunicator pairs(made);
  EXPECT_EQ(syncbn_communicator_rank(pairs.get()), world_rank() % 2);
  EXPECT_EQ(syncbn_communicator_size(pairs.get()), std::min(2, world_size() - world_rank() / 2 * 2));
  ASSERT_OK(syncbn_communicator_per_node(fortran_world(), nullptr, &made));
  const CCommunicator node(made);
  EXPECT_EQ(syncbn_communicator_size(node.get()), world_size());
  EXPECT_EQ(syncbn_communicator_size(nullptr), -1);
}

// The caller's own mistakes: a status and a sentence that names the call, and no crash.
TEST(CInterface, MistakesOfTheCallerAreItsOwn) {
  const auto expect_argument_error = [](syncbn_status status, const char* fragment) {
    EXPECT_EQ(status, SYNCBN_ERROR_ARGUMENT);
    EXPECT_NE(std::string(syncbn_last_error()).find(fragment), std::string::npos) << syncbn_last_error();
  };
  syncbn_layer* layer = nullptr;
  expect_argument_error(syncbn_layer_create(nullptr, nullptr, &layer), "[syncbn_layer_create] options is NULL");
  expect_argument_error(syncbn_layer_forward_eval(nullptr, nullptr, nullptr, nullptr), "layer is NULL");
  expect_argument_error(syncbn_communicator_self(nullptr), "communicator is NULL");
  expect_argument_error(syncbn_cache_count(nullptr, nullptr), "cache is NULL");
  syncbn_layer_options options;
  syncbn_layer_options_init(&options, sizeof options);
  options.struct_size = 8;
  expect_argument_error(syncbn_layer_create(&options, nullptr, &layer), "struct_size is 8");
  options.struct_size = sizeof options + 64;
  expect_argument_error(syncbn_layer_create(&options, nullptr, &layer), "struct_size");
  syncbn_layer_options_init(&options, sizeof options);
  options.affine = 2;
  expect_argument_error(syncbn_layer_create(&options, nullptr, &layer), "affine is 2");
  EXPECT_EQ(layer, nullptr);

  options.affine = 0;
  options.num_features = 3;
  ASSERT_OK(syncbn_layer_create(&options, nullptr, &layer));
  const CLayer owner(layer);
  float numbers[3] = {};
  expect_argument_error(syncbn_layer_bind(layer, SYNCBN_GAMMA, numbers), "not affine");
  expect_argument_error(syncbn_layer_bind(layer, 4, numbers), "which is 4");
  void* data = numbers;
  EXPECT_OK(syncbn_layer_state(layer, SYNCBN_GAMMA, &data));
  EXPECT_EQ(data, nullptr);
  options.num_features = 0;
  syncbn_layer* none = nullptr;
  EXPECT_EQ(syncbn_layer_create(&options, nullptr, &none), SYNCBN_ERROR_OPTION);
  EXPECT_EQ(syncbn_layer_backward(layer, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr), SYNCBN_ERROR_STATE)
      << syncbn_last_error();
  syncbn_layer_destroy(nullptr);
  syncbn_cache_destroy(nullptr);
  syncbn_communicator_destroy(nullptr);
}

TEST(CInterface, SaysWhichLibraryRuns) {
  EXPECT_STREQ(syncbn_version(), SYNCBN_VERSION);
  EXPECT_EQ(syncbn_abi_version(), SYNCBN_ABI_VERSION);
  EXPECT_STREQ(syncbn_instruction_set(), instruction_set());
}

}  // namespace
}  // namespace syncbn::testing
