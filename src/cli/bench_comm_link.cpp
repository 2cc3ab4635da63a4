// SPDX-License-Identifier: MIT
#include "bench_comm_link.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>

#include "agree.hpp"
#include "bench_comm_layer.hpp"
#include "bench_turns.hpp"

namespace syncbn::cli::bench {
namespace {

constexpr int kTag = 1;
constexpr std::size_t kSmall = 8;
constexpr std::size_t kLong = std::size_t{1} << 16;  // of the order of a layer's message
constexpr int kWarmUps = 20;                         // Open MPI sets up its fast path after 16 messages
constexpr int kRepetitions = 200;
constexpr int kLongRepetitions = 60;
constexpr int kTrain = 32;  // small messages in a row

void spin(double seconds) {
  const double end = MPI_Wtime() + seconds;
  while (MPI_Wtime() < end) {
  }
}

/// One of two ranks that play ping-pong. Both call the same functions; the first one has the results.
class PingPong {
 public:
  explicit PingPong(MPI_Comm comm)
      : comm_(comm),
        is_first_(rank_of(comm) == 0),
        partner_(is_first_ ? size_of(comm) - 1 : 0),
        buffer_(kLong, std::byte{0}) {}

  /// Half of the time to the other one and back, after a train of `count` messages there.
  std::vector<double> halves(std::size_t bytes, int count, int repetitions) {
    std::vector<double> seconds;
    for (int i = -kWarmUps; i < repetitions; ++i) {
      const double start = MPI_Wtime();
      for (int m = 0; m < count; ++m) is_first_ ? send(bytes) : receive(bytes);
      is_first_ ? receive(bytes) : send(bytes);
      if (i >= 0) seconds.push_back(0.5 * (MPI_Wtime() - start));
    }
    return seconds;
  }

  /// What sending takes, and receiving what has arrived for sure: `pause` is the time for that. The least of each, since
  /// nothing but a disturbance can add to work that waits for nobody.
  double overhead(double pause) {
    std::vector<double> sending, receiving;
    for (int i = 0; i < kRepetitions; ++i) {
      if (!is_first_) {
        receive(kSmall);
        send(kSmall);
        continue;
      }
      const double start = MPI_Wtime();
      send(kSmall);
      const double sent = MPI_Wtime();
      spin(pause);
      const double arrived = MPI_Wtime();
      receive(kSmall);
      sending.push_back(sent - start);
      receiving.push_back(MPI_Wtime() - arrived);
    }
    return is_first_ ? 0.5 * (least(sending) + least(receiving)) : 0.0;
  }

 private:
  void send(std::size_t bytes) {
    check_mpi(MPI_Send(buffer_.data(), static_cast<int>(bytes), MPI_BYTE, partner_, kTag, comm_), "MPI_Send");
  }
  void receive(std::size_t bytes) {
    check_mpi(MPI_Recv(buffer_.data(), static_cast<int>(bytes), MPI_BYTE, partner_, kTag, comm_, MPI_STATUS_IGNORE),
              "MPI_Recv");
  }

  MPI_Comm comm_;
  bool is_first_;
  int partner_;
  std::vector<std::byte> buffer_;
};

Link play(MPI_Comm comm) {
  PingPong game(comm);
  const double half = median(game.halves(kSmall, 1, kRepetitions));
  const double train = median(game.halves(kSmall, kTrain, kRepetitions));
  const double half_long = median(game.halves(kLong, 1, kLongRepetitions));
  constexpr double kLongestPause = 10e-3;
  Link link;
  link.overhead = std::min(game.overhead(std::min(4.0 * half, kLongestPause)), 0.5 * half);
  link.latency = half - 2.0 * link.overhead;
  link.gap = std::max(0.0, 2.0 * (train - half) / (kTrain - 1));
  link.gap_per_byte = std::max(0.0, (half_long - half) / static_cast<double>(kLong - kSmall));
  return link;
}

/// Gathers from ranks that all say what this one says, but for who they are (syncbn::AllGather: the first call).
class Echo {
 public:
  explicit Echo(int size) : size_(static_cast<std::size_t>(size)) {}

  void operator()(const void* mine, std::size_t bytes, void* all) {
    const double start = MPI_Wtime();
    for (std::size_t rank = 0; rank < size_; ++rank) {
      std::byte* part = static_cast<std::byte*>(all) + rank * bytes;
      std::memcpy(part, mine, bytes);
      const auto number = static_cast<std::int64_t>(rank);
      if (bytes_ == 0) std::memcpy(part, &number, sizeof number);
    }
    bytes_ = bytes;
    seconds_ += MPI_Wtime() - start;
  }

  std::size_t bytes() const noexcept { return bytes_; }  ///< Of the last message.
  double seconds() const noexcept { return seconds_; }   ///< Spent in here, all in all.

 private:
  std::size_t size_;
  std::size_t bytes_ = 0;
  double seconds_ = 0.0;
};

/// A layer among copies of this rank.
class EchoLayer {
 public:
  EchoLayer(const Options& options, int copies, Batch& batch)
      : echo_(std::make_shared<Echo>(copies)),
        layer_(
            options,
            Communicator(0, copies,
                         [echo = echo_](const void* mine, std::size_t bytes, void* all) { (*echo)(mine, bytes, all); }),
            batch) {}

  /// A forward pass without the gathering.
  double forward_seconds() {
    const double before = echo_->seconds();
    const double start = MPI_Wtime();
    layer_.run(Pass::forward);
    return MPI_Wtime() - start - (echo_->seconds() - before);
  }

  std::size_t bytes() const { return echo_->bytes(); }

 private:
  std::shared_ptr<Echo> echo_;
  TinyLayer layer_;
};

MessageCosts measure_message(const Options& options, Index channels, MPI_Comm comm) {
  constexpr int kFew = 2, kMany = 18;
  constexpr int kPasses = 100;
  Batch batch = tiny_batch(options, channels, comm);
  TinyLayer alone(options, Communicator(), batch);
  EchoLayer few(options, kFew, batch), many(options, kMany, batch);
  std::array<std::vector<double>, 3> seconds;
  for (int pass = 0; pass < kPasses; ++pass) {
    const double start = MPI_Wtime();
    alone.run(Pass::forward);
    seconds[0].push_back(MPI_Wtime() - start);
    seconds[1].push_back(few.forward_seconds());
    seconds[2].push_back(many.forward_seconds());
  }
  const double local = median(seconds[0]);
  const double merge = (median(seconds[2]) - median(seconds[1])) / (kMany - kFew);
  return {channels, local, {few.bytes(), merge, median(seconds[1]) - local - (kFew - 1) * merge}};
}

}  // namespace

Link measure_link(MPI_Comm comm) {
  const int rank = rank_of(comm);
  Link link;
  if (rank == 0 || rank == size_of(comm) - 1) link = play(comm);
  std::array<double, 4> numbers{link.latency, link.overhead, link.gap, link.gap_per_byte};
  check_mpi(MPI_Bcast(numbers.data(), static_cast<int>(numbers.size()), MPI_DOUBLE, 0, comm), "MPI_Bcast");
  return {numbers[0], numbers[1], numbers[2], numbers[3]};
}

std::vector<MessageCosts> measure_messages(const Options& options, MPI_Comm comm) {
  std::vector<MessageCosts> all;
  for (const Index channels : options.channels) {
    MessageCosts costs = measure_message(options, channels, comm);
    std::array<double, 3> seconds{costs.local, costs.message.merge, costs.message.round};
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, seconds.data(), static_cast<int>(seconds.size()), MPI_DOUBLE, MPI_MAX, comm),
              "MPI_Allreduce");
    costs.local = seconds[0];
    costs.message.merge = std::max(0.0, seconds[1]);
    costs.message.round = std::max(0.0, seconds[2]);
    all.push_back(costs);
  }
  return all;
}

}  // namespace syncbn::cli::bench
