// SPDX-License-Identifier: MIT
#include "normalize.hpp"

#include <cstdio>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "agree.hpp"
#include "frozen_gradients.hpp"
#include "shards.hpp"
#include "syncbn/syncbn.hpp"
#include "tensor_file.hpp"

namespace syncbn::cli {
namespace {

/// What the files are, and which rows this rank has.
struct Problem {
  NpyHeader x;
  std::optional<NpyHeader> residual, dy;
  Index channels = 0;
  std::vector<Index> shards;
  RowRange mine;

  DataType parameter_type() const { return parameter_type_for(x.type); }
};

/// This rank's rows. Results take the place of what is not needed any more: y that of the residual, else of x if there is
/// no backward pass to need x; behind a ReLU that pass needs y, too, so nothing is written over y. dresidual takes dy's
/// place and dx then x's; without a residual dx takes dy's.
struct Tensors {
  Bytes x, residual, own_y, dy;

  Bytes& y(const Problem& problem) { return problem.residual ? residual : problem.dy ? own_y : x; }
  Bytes& dx(const Problem& problem) { return problem.residual ? x : dy; }
};

struct Results {
  BatchNormCache cache;
  BatchNormGradients gradients;
};

/// An empty array may claim any number of channels without a byte of data: what the layer allocates has to have a
/// bound.
constexpr Index kMaxChannelsOfEmptyInput = Index{1} << 20;

const char* name_of(NormalizeMode mode) {
  switch (mode) {
    case NormalizeMode::train:
      return "train";
    case NormalizeMode::eval:
      return "eval";
    case NormalizeMode::local:
      return "local";
    case NormalizeMode::frozen:
      break;
  }
  return "frozen";
}

Index channels_of(const std::string& path, const NpyHeader& x, Layout layout) {
  const std::string got = "'" + path + "' has shape " + shape_text(x.shape);
  if (x.shape.size() < 2)
    throw LocalFailure(kBadData, got + ", wanted 2 or more dimensions, (N, C) or (N, C, *spatial)");
  const Index channels = layout == Layout::channels_last ? x.shape.back() : x.shape[1];
  if (channels == 0) throw LocalFailure(kBadData, got + ", wanted at least one channel");
  if (x.element_count() == 0 && channels > kMaxChannelsOfEmptyInput) {
    throw LocalFailure(kBadData, got + ", wanted at most " + std::to_string(kMaxChannelsOfEmptyInput) +
                                     " channels in an array without data");
  }
  return channels;
}

void require_same(const std::string& path, const NpyHeader& other, const NpyHeader& x) {
  if (other.shape == x.shape && other.type == x.type) return;
  throw LocalFailure(kBadData, "'" + path + "' is " + shape_text(other.shape) + " " + name_of(other.type) +
                                   ", wanted " + shape_text(x.shape) + " " + name_of(x.type) + " as the input");
}

/// Checks the headers and splits the rows before any rank reads data.
Problem read_problem(const NormalizeOptions& options, MPI_Comm comm) {
  Problem problem;
  problem.x = read_shared_header(comm, options.input);
  if (!options.residual.empty()) problem.residual = read_shared_header(comm, options.residual);
  if (!options.grad_output.empty()) problem.dy = read_shared_header(comm, options.grad_output);
  together(comm, [&] {
    problem.channels = channels_of(options.input, problem.x, options.layout);
    if (problem.residual) require_same(options.residual, *problem.residual, problem.x);
    if (problem.dy) require_same(options.grad_output, *problem.dy, problem.x);
    problem.shards = shards_for(options.shards, problem.x.shape.front(), size_of(comm));
    problem.mine = rows_of_rank(problem.shards, rank_of(comm));
  });
  return problem;
}

Tensors read_tensors(const NormalizeOptions& options, const Problem& problem, MPI_Comm comm) {
  Tensors tensors;
  tensors.x = read_finite_rows(comm, options.input, problem.x, problem.mine);
  if (problem.residual) {
    tensors.residual = read_finite_rows(comm, options.residual, *problem.residual, problem.mine);
  }
  if (problem.dy) tensors.dy = read_finite_rows(comm, options.grad_output, *problem.dy, problem.mine);
  if (problem.dy && !problem.residual) together(comm, [&] { tensors.own_y.resize(tensors.x.size()); });
  return tensors;
}

/// Calls of the layer over all ranks throw the same on all of them; one over fewer throws on those alone.
void call_layer(bool is_collective, MPI_Comm comm, const std::function<void()>& call) {
  if (is_collective) {
    call();
  } else {
    together(comm, call);
  }
}

/// Do all ranks share their statistics? Else each rank, or group, has its own.
bool shares_all(const NormalizeOptions& options) {
  return options.mode == NormalizeMode::train && options.group_size.empty();
}

Communicator group_for(const NormalizeOptions& options, MPI_Comm comm) {
  if (options.mode == NormalizeMode::local) return Communicator();
  if (options.group_size.empty()) return Communicator(comm);
  if (options.group_size == "node") return Communicator::per_node(comm);
  return Communicator::groups_of(std::stoi(options.group_size), comm);
}

BatchNorm make_layer(const NormalizeOptions& options, const Problem& problem, MPI_Comm comm) {
  BatchNormOptions layer_options;
  layer_options.num_features = problem.channels;
  layer_options.eps = options.eps;
  layer_options.momentum = options.momentum;
  layer_options.unbiased_running_var = !options.biased_running_var;
  layer_options.activation = options.activation;
  layer_options.parameter_gradients = options.param_grad;
  layer_options.parameter_type = problem.parameter_type();
  layer_options.reduction = options.reduction;
  layer_options.threads = options.threads;
  layer_options.name = "normalize";

  const Communicator group = group_for(options, comm);
  std::optional<BatchNorm> layer;
  call_layer(group.size() == size_of(comm), comm, [&] { layer.emplace(layer_options, group); });
  return std::move(*layer);
}

void load_parameter(const std::string& path, const Problem& problem, MPI_Comm comm, ChannelVector& parameter) {
  if (path.empty()) return;
  const std::vector<double> values = read_channel_vector(comm, path, problem.channels, problem.parameter_type());
  for (Index c = 0; c < problem.channels; ++c) parameter.set(c, values[static_cast<std::size_t>(c)]);
}

void load_parameters(const NormalizeOptions& options, const Problem& problem, MPI_Comm comm, BatchNorm& layer) {
  load_parameter(options.gamma, problem, comm, layer.gamma());
  load_parameter(options.beta, problem, comm, layer.beta());
  load_parameter(options.running_mean, problem, comm, layer.running_mean());
  load_parameter(options.running_var, problem, comm, layer.running_var());
  together(comm, [&] {
    for (Index c = 0; c < problem.channels; ++c) {
      if (layer.running_var()[c] >= 0.0) continue;
      throw LocalFailure(kBadData, "'" + options.running_var + "' has " + std::to_string(layer.running_var()[c]) +
                                       " at [" + std::to_string(c) + "], wanted variances >= 0");
    }
  });
}

void forward(NormalizeMode mode, ConstTensorView x, ConstTensorView residual, TensorView y, BatchNorm& layer,
             BatchNormCache& cache) {
  switch (mode) {
    case NormalizeMode::train:
    case NormalizeMode::local:
      return layer.forward_train(x, y, cache, residual);
    case NormalizeMode::frozen:
      return layer.forward_frozen(x, y, cache, residual);
    case NormalizeMode::eval:
      break;
  }
  layer.forward_eval(x, y, residual);
  for (Index c = 0; c < layer.options().num_features; ++c) {
    cache.mean.push_back(layer.running_mean()[c]);
    cache.var.push_back(layer.running_var()[c]);
  }
}

/// dy, and what backward() writes; dresidual none without a residual.
struct GradientViews {
  TensorView dy, dx, dresidual;
};

BatchNormGradients backward(const NormalizeOptions& options, const Problem& problem, MPI_Comm comm, BatchNorm& layer,
                            const BatchNormCache& cache, const GradientViews& views) {
  const bool is_collective = shares_all(options);
  BatchNormGradients gradients;
  if (options.mode != NormalizeMode::frozen || options.param_grad == ParameterGradients::local) {
    call_layer(is_collective, comm, [&] { layer.backward(cache, views.dy, views.dx, gradients, views.dresidual); });
    return gradients;
  }
  // The sums are of the gradient behind the activation, which is left in dy (to mask it once more does nothing), and
  // they come before dx, which is written over dy or x.
  if (options.activation != Activation::none) {
    call_layer(is_collective, comm, [&] { layer.backward_input(cache, views.dy, TensorView(), views.dy); });
  }
  gradients = frozen_gradients(cache, views.dy, problem.parameter_type(), layer.communicator(), comm);
  call_layer(is_collective, comm, [&] { layer.backward_input(cache, views.dy, views.dx, views.dresidual); });
  return gradients;
}

Results run_layer(const NormalizeOptions& options, const Problem& problem, MPI_Comm comm, BatchNorm& layer,
                  Tensors& tensors) {
  std::vector<Index> extents = problem.x.shape;
  extents.front() = problem.mine.count;
  const auto shape = TensorShape::from_extents(extents.data(), extents.size(), options.layout);
  const auto view_of = [&](Bytes& rows) { return TensorView{rows.data(), problem.x.type, shape}; };
  const TensorView residual = problem.residual ? view_of(tensors.residual) : TensorView();

  Results results;
  call_layer(shares_all(options), comm, [&] {
    forward(options.mode, view_of(tensors.x), residual, view_of(tensors.y(problem)), layer, results.cache);
  });
  if (problem.dy) {
    const TensorView dy = view_of(tensors.dy);
    results.gradients = backward(options, problem, comm, layer, results.cache,
                                 {dy, view_of(tensors.dx(problem)), problem.residual ? dy : TensorView()});
  }
  return results;
}

/// Writes the results; knows who brings which part of an array.
class ResultWriter {
 public:
  ResultWriter(OutputFolder* folder, const Problem& problem, MPI_Comm comm)
      : folder_(folder), problem_(problem), comm_(comm), ranks_(static_cast<std::size_t>(size_of(comm))) {}

  void tensor(const std::string& name, const Bytes& rows) {
    write_rows(comm_, folder_, {name, problem_.x.type, problem_.x.shape, problem_.shards}, rows.data());
  }

  /// (ranks, C) if each rank has its own numbers, else (C), taken from rank 0.
  void channels(const std::string& name, DataType type, const void* values, bool is_per_rank) {
    std::vector<Index> shape{problem_.channels}, rows_of_ranks(ranks_, is_per_rank ? 1 : 0);
    if (is_per_rank) {
      shape.insert(shape.begin(), static_cast<Index>(ranks_));
    } else {
      rows_of_ranks.front() = problem_.channels;
    }
    write_rows(comm_, folder_, {name, type, shape, rows_of_ranks}, values);
  }

  void channels(const std::string& name, const std::vector<double>& values, bool is_per_rank) {
    channels(name, DataType::f64, values.data(), is_per_rank);
  }

  void channels(const std::string& name, const ChannelVector& values, bool is_per_rank) {
    if (values.type() == DataType::f64) {
      channels(name, DataType::f64, values.data<double>(), is_per_rank);
    } else {
      channels(name, DataType::f32, values.data<float>(), is_per_rank);
    }
  }

 private:
  OutputFolder* folder_;
  const Problem& problem_;
  MPI_Comm comm_;
  std::size_t ranks_;
};

void write_forward(const NormalizeOptions& options, const BatchNorm& layer, const Bytes& y, const Results& results,
                   ResultWriter& writer) {
  const bool is_per_rank = options.mode == NormalizeMode::local || !options.group_size.empty();
  writer.tensor("y", y);
  writer.channels("mean", results.cache.mean, is_per_rank);
  writer.channels("var", results.cache.var, is_per_rank);
  writer.channels("running_mean", layer.running_mean(), is_per_rank);
  writer.channels("running_var", layer.running_var(), is_per_rank);
}

void write_backward(const NormalizeOptions& options, const Problem& problem, Tensors& tensors, const Results& results,
                    ResultWriter& writer) {
  const bool is_per_rank = options.mode == NormalizeMode::local || !options.group_size.empty() ||
                           options.param_grad == ParameterGradients::local;
  writer.tensor("dx", tensors.dx(problem));
  if (problem.residual) writer.tensor("dresidual", tensors.dy);
  writer.channels("dgamma", results.gradients.dgamma, is_per_rank);
  writer.channels("dbeta", results.gradients.dbeta, is_per_rank);
}

void print_summary(const NormalizeOptions& options, const Problem& problem, int ranks, const OutputFolder& folder) {
  std::printf("input    %s %s %s, %lld channels, %s\n", options.input.c_str(), shape_text(problem.x.shape).c_str(),
              name_of(problem.x.type), static_cast<long long>(problem.channels), name_of(options.layout));
  const std::string groups = options.group_size.empty()     ? ""
                             : options.group_size == "node" ? " in groups by node"
                                                            : " in groups of " + options.group_size;
  std::printf("mode     %s, %d rank%s%s, rows per rank %s\n", name_of(options.mode), ranks, ranks == 1 ? "" : "s",
              groups.c_str(), shards_text(problem.shards).c_str());
  std::printf("written  %s:", options.out.c_str());
  for (const std::string& name : folder.names()) std::printf(" %s", name.c_str());
  std::printf("\n");
}

}  // namespace

void normalize(const NormalizeOptions& options, MPI_Comm comm) {
  const Problem problem = read_problem(options, comm);
  BatchNorm layer = make_layer(options, problem, comm);
  load_parameters(options, problem, comm, layer);
  std::unique_ptr<OutputFolder> folder;  // on rank 0
  together_on(0, comm, [&] { folder = std::make_unique<OutputFolder>(options.out); });

  Tensors tensors = read_tensors(options, problem, comm);
  const Results results = run_layer(options, problem, comm, layer, tensors);

  ResultWriter writer(folder.get(), problem, comm);
  write_forward(options, layer, tensors.y(problem), results, writer);
  if (problem.dy) write_backward(options, problem, tensors, results, writer);
  together_on(0, comm, [&] { folder->publish(); });
  if (rank_of(comm) == 0) print_summary(options, problem, size_of(comm), *folder);
}

}  // namespace syncbn::cli
