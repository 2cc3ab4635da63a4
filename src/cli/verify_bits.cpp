// SPDX-License-Identifier: MIT
#include "verify_bits.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "agree.hpp"
#include "shards.hpp"
#include "syncbn/syncbn.hpp"
#include "train/random.hpp"
#include "train/watched.hpp"

namespace syncbn::cli {
namespace {

using train::CounterRandom;

enum class Split { even, uneven, first_empty, on_last };

struct Way {
  const char* samples;
  Split split;
  bool is_shuffled;
  bool is_reversed;  // ranks in the opposite order
  int ranks;
  int threads;
};

std::vector<Way> ways(int ranks) {
  std::vector<Way> all = {{"the whole batch in one process", Split::even, false, false, 1, 1},
                          {"the same, shuffled", Split::even, true, false, 1, 1},
                          {"the same", Split::even, false, false, 1, 2}};
  for (int group = 2; group < ranks; group = group < 8 ? group + 1 : 2 * group) {
    all.push_back({"even", Split::even, false, false, group, 1});
  }
  if (ranks == 1) return all;
  all.insert(all.end(), {{"even", Split::even, false, false, ranks, 1},
                         {"even", Split::even, false, false, ranks, 2},
                         {"even, shuffled", Split::even, true, false, ranks, 1},
                         {"even, ranks in reverse order", Split::even, false, true, ranks, 1},
                         {"uneven", Split::uneven, false, false, ranks, 1},
                         {"uneven, shuffled", Split::uneven, true, false, ranks, 2},
                         {"rank 0 has none", Split::first_empty, true, false, ranks, 1},
                         {"all on one rank", Split::on_last, true, false, ranks, 1}});
  return all;
}

std::vector<Index> counts_of(const Way& way, Index samples) {
  std::vector<Index> counts = even_shards(samples, way.ranks);
  const std::size_t last = counts.size() - 1;
  switch (way.split) {
    case Split::even:
      break;
    case Split::uneven:  // half of what is left to each
      for (Index& count : counts) {
        count = (samples + 1) / 2;
        samples -= count;
      }
      counts[last] += samples;
      break;
    case Split::first_empty:
      counts[last] += counts[0];
      counts[0] = 0;
      break;
    case Split::on_last:
      std::fill(counts.begin(), counts.end(), Index{0});
      counts[last] = samples;
      break;
  }
  return counts;
}

/// Numbers of the whole batch's samples that rank `rank` of the group has, in its order.
std::vector<Index> samples_of(const Way& way, Index samples, int rank, const CounterRandom& random) {
  std::vector<Index> order(static_cast<std::size_t>(samples));
  std::iota(order.begin(), order.end(), Index{0});
  for (std::size_t i = order.size(); way.is_shuffled && i > 1; --i) std::swap(order[i - 1], order[random.below(i, i)]);
  const RowRange mine = rows_of_rank(counts_of(way, samples), rank);
  return {order.begin() + mine.first, order.begin() + mine.first + mine.count};
}

/// FNV-1a.
class Hash {
 public:
  void add(const void* data, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) {
      value_ = (value_ ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001b3u;
    }
  }
  void add(const std::vector<double>& values) { add(values.data(), values.size() * sizeof(double)); }
  void add(const ChannelVector& values) {
    for (Index c = 0; c < values.size(); ++c) {
      const double value = values[c];
      add(&value, sizeof value);
    }
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

struct Shape {
  Index samples, channels, positions;
  Layout layout;
  double offset;
};

/// What a rank contributes to a way's hash.
struct Hashes {
  std::vector<std::uint64_t> of_samples;  // of the whole batches; 0 where another rank has the sample
  Hash of_channels;
};

/// Two training steps of a rank's samples of a batch.
template <class T>
class BitsRun {
 public:
  BitsRun(const Shape& shape, std::uint64_t seed, std::vector<Index> samples)
      : shape_(shape), seed_(seed), samples_(std::move(samples)) {}

  void run(const Communicator& group, Reduction reduction, int threads, Hashes& hashes) const {
    BatchNormOptions options;
    options.num_features = shape_.channels;
    options.parameter_type = DataTypeOf<T>::value;
    options.reduction = reduction;
    options.threads = threads;
    options.name = "verify.bits";
    BatchNorm layer(options, group);
    for (std::uint64_t step = 0; step < 2; ++step) {
      std::vector<T> x = draw(2 * step, shape_.offset);
      std::vector<T> dy = draw(2 * step + 1, 0.0);
      std::vector<T> y(x.size()), dx(x.size());
      const BatchNormCache cache = layer.forward_train(view(x), view(y));
      const BatchNormGradients gradients = layer.backward(cache, view(dy), view(dx));
      add_samples(y, dx, hashes.of_samples);
      for (const auto* values : {&cache.mean, &cache.var}) hashes.of_channels.add(*values);
      for (const ChannelVector* values : {&gradients.dgamma, &gradients.dbeta, &std::as_const(layer).running_mean(),
                                          &std::as_const(layer).running_var()}) {
        hashes.of_channels.add(*values);
      }
    }
  }

 private:
  Index sample_size() const { return shape_.channels * shape_.positions; }
  TensorView view(std::vector<T>& tensor) const {
    const Index n = static_cast<Index>(samples_.size());
    return shape_.layout == Layout::channels_last
               ? channels_last(tensor.data(), {n, shape_.positions, shape_.channels})
               : channels_first(tensor.data(), {n, shape_.channels, shape_.positions});
  }

  /// offset + a sum of four uniform numbers; one in 64 is a thousand times as large.
  std::vector<T> draw(std::uint64_t stream, double offset) const {
    const CounterRandom random(seed_, stream);
    std::vector<T> values;
    for (const Index sample : samples_) {
      for (Index i = sample * sample_size(); i < (sample + 1) * sample_size(); ++i) {
        const auto first = 4 * static_cast<std::uint64_t>(i);
        double value = -2.0;
        for (std::uint64_t k = 0; k < 4; ++k) value += random.uniform(first + k);
        if (random.bits(first) % 64 == 0) value *= 1000.0;
        values.push_back(static_cast<T>(offset + value));
      }
    }
    return values;
  }

  void add_samples(const std::vector<T>& y, const std::vector<T>& dx, std::vector<std::uint64_t>& hashes) const {
    const std::size_t before = hashes.size();
    hashes.resize(before + static_cast<std::size_t>(shape_.samples), 0);
    const auto size = static_cast<std::size_t>(sample_size());
    for (std::size_t i = 0; i < samples_.size(); ++i) {
      Hash hash;
      hash.add(y.data() + i * size, size * sizeof(T));
      hash.add(dx.data() + i * size, size * sizeof(T));
      hashes[before + static_cast<std::size_t>(samples_[i])] = hash.value();
    }
  }

  Shape shape_;
  std::uint64_t seed_;
  std::vector<Index> samples_;
};

/// Large enough that two threads get work. The mean is 1000 times as large as sigma in the second.
constexpr Shape kRows = {512, 40, 1, Layout::channels_first, 1.0};
constexpr Shape kPlanes = {32, 24, 35, Layout::channels_first, 600.0};
constexpr Shape kDoublePlanes = {32, 24, 35, Layout::channels_last, -3.0};

template <class T>
void run_batch(const Shape& shape, std::uint64_t seed, const Way& way, Reduction reduction, const Communicator& group,
               Hashes& hashes) {
  const CounterRandom order(seed, 100);
  BitsRun<T>(shape, seed, samples_of(way, shape.samples, group.rank(), order))
      .run(group, reduction, way.threads, hashes);
}

Hashes run_batches(const Way& way, std::uint64_t seed, Reduction reduction, const Communicator& group) {
  Hashes hashes;
  run_batch<float>(kRows, seed, way, reduction, group, hashes);
  run_batch<float>(kPlanes, seed + 1, way, reduction, group, hashes);
  run_batch<double>(kDoublePlanes, seed + 2, way, reduction, group, hashes);
  return hashes;
}

/// One hash from those of all ranks of the group; false in `agree` if ranks have other channel results than rank 0.
/// Collective over the group.
std::uint64_t unite(Hashes hashes, MPI_Comm group, bool& agree) {
  auto& samples = hashes.of_samples;
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, samples.data(), static_cast<int>(samples.size()), MPI_UINT64_T, MPI_SUM, group),
            "MPI_Allreduce");
  std::array<std::uint64_t, 2> extremes = {hashes.of_channels.value(), ~hashes.of_channels.value()};
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, extremes.data(), 2, MPI_UINT64_T, MPI_MAX, group), "MPI_Allreduce");
  agree = extremes[0] == ~extremes[1];
  Hash all;
  all.add(samples.data(), samples.size() * sizeof(std::uint64_t));
  all.add(extremes.data(), sizeof extremes[0]);
  return all.value();
}

/// Collective over `comm`.
BitsLine run_way(const Way& way, std::uint64_t seed, Reduction reduction, MPI_Comm comm) {
  const int rank = rank_of(comm);
  MPI_Comm group = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(comm, rank < way.ranks ? 0 : MPI_UNDEFINED, way.is_reversed ? -rank : rank, &group),
            "MPI_Comm_split");
  std::array<std::uint64_t, 2> result = {0, 1};
  if (group != MPI_COMM_NULL) {
    bool agree = false;
    const Communicator members = way.ranks == 1 ? Communicator() : Communicator(group);
    result[0] = unite(run_batches(way, seed, reduction, members), group, agree);
    result[1] = agree ? 1 : 0;
    check_mpi(MPI_Comm_free(&group), "MPI_Comm_free");
  }
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibcast(result.data(), 2, MPI_UINT64_T, 0, comm, &request), "MPI_Ibcast");
  train::wait(comm, request, "hash of a run");
  return {way.samples, way.ranks, way.threads, result[0], result[1] != 0};
}

}  // namespace

std::vector<BitsLine> run_same_bits(std::uint64_t seed, Reduction reduction, MPI_Comm comm) {
  std::vector<BitsLine> lines;
  for (const Way& way : ways(size_of(comm))) {
    lines.push_back(run_way(way, seed, reduction, comm));
    lines.back().is_same = lines.back().is_same && lines.back().hash == lines.front().hash;
  }
  return lines;
}

}  // namespace syncbn::cli
