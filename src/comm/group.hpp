// SPDX-License-Identifier: MIT
// A group of ranks with all that its members need to talk: transport, watch, and the rounds that belong to no layer.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "comm/round.hpp"
#include "comm/transport.hpp"
#include "comm/watch.hpp"
#include "syncbn/communicator.hpp"

namespace syncbn::comm {

struct GroupOptions {
  double deadline_seconds = 600.0;          ///< May differ between ranks.
  Exchange exchange = Exchange::automatic;  ///< May not.
};

/// What the group's own rounds are about.
enum class OwnPass : std::int32_t { communicator = 1, layer = 2, sum = 3, split = 4 };

/// Shared by everything that communicates in the group. Its channels are numbered in the order in which they are opened,
/// which is the same on all ranks.
class Group {
 public:
  static constexpr std::size_t kPledgeBytes = 216;

  /// Two ranks that bring different bytes to pledge().
  struct Disagreement {
    std::byte first[kPledgeBytes];  ///< Rank 0's.
    std::byte other[kPledgeBytes];  ///< Those of `rank`, the lowest whose bytes are not rank 0's.
    int rank;
  };

  /// Collective; the transport must be ready. `problem`: what this rank found wrong with its options already. Throws the
  /// same error on all ranks if one brings a problem, or if they do not want the same exchange.
  Group(std::unique_ptr<Transport> transport, const GroupOptions& options, const std::optional<Problem>& problem);
  ~Group();

  int rank() const noexcept { return transport_->rank(); }
  int size() const noexcept { return transport_->size(); }
  Watch& watch() noexcept { return watch_; }
  const GroupOptions& options() const noexcept { return options_; }

  /// Do all ranks bring the same at most kPledgeBytes bytes? One message of one size for whatever is pledged, so it is safe
  /// even between ranks that mean different things. `count` <- the sum of the shares. Throws, as Rounds::finish(), on all
  /// ranks. Collective.
  std::optional<Disagreement> pledge(OwnPass pass, const void* mine, std::size_t bytes, Share share,
                                     const std::optional<Problem>& problem, std::int64_t* count = nullptr);

  /// A channel of its own, opened. `place` says what for, if ranks are missing. Collective.
  std::unique_ptr<Channel> open_channel(const std::string& place);
  std::int32_t next_channel_number() noexcept { return channels_++; }

  /// Waits until nothing is in flight on a channel; on failure it is kept for ever, with what it writes to.
  void wait_for(std::unique_ptr<Channel>& channel, const std::string& place);

  /// data <- the merge of all ranks' data, by an exchange that all ranks name alike. They must have agreed on size and merge
  /// (pledge()). `place` says what for. Collective.
  void merge(std::byte* data, std::size_t bytes, Merge merge_data, Exchange exchange, const std::string& place);

  /// The rounds in which a rank without data answers.
  void enter(Rounds& rounds);
  void leave(Rounds& rounds) noexcept;
  std::string describe(const RoundKey& key, const Describe& otherwise);
  /// Answers in them until all ranks have called join(). Returns the lowest rank that had data in the last round of any
  /// that had some; 0 if there was none.
  int join();
  /// An error has ended join(): some channels may have had their last round already, and the others answer in none of them
  /// but by join(), so this rank can only call that again.
  bool has_to_join_again() const noexcept { return has_to_join_again_; }

 private:
  class OpenRounds;
  void release() noexcept;
  int end_join();

  std::unique_ptr<Transport> transport_;
  GroupOptions options_;
  Watch watch_;
  std::int32_t channels_ = 0;
  std::unique_ptr<Rounds> own_;
  std::unique_ptr<Channel> bulk_;  // of merge(); opened when first used
  std::vector<std::uint64_t> bulk_data_;
  std::mutex mutex_;
  std::vector<Rounds*> rounds_;
  int last_rank_with_data_ = 0;
  std::atomic<bool> has_to_join_again_{false};
};

}  // namespace syncbn::comm
