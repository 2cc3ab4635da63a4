// SPDX-License-Identifier: MIT
#include "comm/group.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/keep.hpp"

namespace syncbn::comm {
namespace {

const char* name_of(OwnPass pass) {
  switch (pass) {
    case OwnPass::communicator:
      return "[Communicator construction]";
    case OwnPass::split:
      return "[Communicator groups]";
    case OwnPass::layer:
      return "[BatchNorm construction]";
    case OwnPass::sum:
      return "[ReproducibleSum]";
  }
  return "[Communicator]";
}

std::string describe_own(const RoundKey& key) {
  return key.is_any_pass() ? "[Communicator construction]" : name_of(static_cast<OwnPass>(key.pass));
}

const char* exchange_in(const std::byte* bytes) {
  std::int32_t value = 0;
  std::memcpy(&value, bytes, sizeof value);
  switch (static_cast<Exchange>(value)) {
    case Exchange::automatic:
      return "automatic";
    case Exchange::all_reduce:
      return "all_reduce";
    case Exchange::all_gather:
      return "all_gather";
  }
  return "unknown";
}

/// What is in flight on a channel that has no Rounds; nullptr: on one that is being made.
class ChannelAwaited final : public Awaited {
 public:
  ChannelAwaited(Channel* channel, const std::string& place) : channel_(channel), place_(place) {}
  bool test() override { return channel_ == nullptr || channel_->test(); }
  std::string place() const override { return place_; }
  bool needs(std::int32_t, std::int64_t) const override { return false; }

 private:
  Channel* channel_;
  const std::string& place_;
};

/// The body of Group::pledge().
struct Pledge {
  std::byte first[Group::kPledgeBytes] = {};  // of the first rank
  std::byte other[Group::kPledgeBytes] = {};  // of the lowest rank whose bytes are others
  std::int32_t other_rank = MessageHeader::kNobody;
  std::int32_t reserved = 0;

  void note(const std::byte* bytes, std::int32_t rank) {
    if (rank >= other_rank) return;
    other_rank = rank;
    std::copy_n(bytes, Group::kPledgeBytes, other);
  }
};
static_assert(sizeof(Pledge) == 440);

/// Does not depend on the order of merging, for the reason given for the header's rank out of step.
void merge_pledges(const std::byte* in, std::byte* inout, std::size_t) {
  MessageHeader low_header;
  MessageHeader high_header;
  Pledge low;
  Pledge high;
  std::memcpy(&low_header, in, sizeof low_header);
  std::memcpy(&high_header, inout, sizeof high_header);
  std::memcpy(&low, in + sizeof low_header, sizeof low);
  std::memcpy(&high, inout + sizeof high_header, sizeof high);
  if (high_header.first_rank < low_header.first_rank) {
    std::swap(low, high);
    std::swap(low_header, high_header);
  }
  if (std::memcmp(low.first, high.first, sizeof low.first) != 0) low.note(high.first, high_header.first_rank);
  if (high.other_rank != MessageHeader::kNobody) low.note(high.other, high.other_rank);
  std::memcpy(inout + sizeof low_header, &low, sizeof low);
  merge_header(in, inout);
}

}  // namespace

/// Several channels' rounds: done when one of them is.
class Group::OpenRounds final : public Awaited {
 public:
  explicit OpenRounds(const std::vector<Rounds*>& rounds) : rounds_(rounds) {}
  bool test() override {
    return std::any_of(rounds_.begin(), rounds_.end(), [](Rounds* rounds) { return rounds->progress(); });
  }
  std::string place() const override { return "[Communicator join]"; }
  bool fits_all() const override { return true; }
  bool needs(std::int32_t channel, std::int64_t rounds_of_leaver) const override {
    return std::any_of(rounds_.begin(), rounds_.end(),
                       [&](const Rounds* rounds) { return rounds->waits_for(channel, rounds_of_leaver); });
  }

 private:
  const std::vector<Rounds*>& rounds_;
};

Group::Group(std::unique_ptr<Transport> transport, const GroupOptions& options, const std::optional<Problem>& problem)
    : transport_(std::move(transport)), options_(options), watch_(*transport_, options.deadline_seconds) {
  try {
    own_ = std::make_unique<Rounds>(*this, describe_own, nullptr);
    own_->message().resize_body(sizeof(Pledge));
    // Until they have agreed, all use the same.
    const Exchange wanted = std::exchange(options_.exchange, Exchange::all_gather);
    const auto mine = static_cast<std::int32_t>(wanted);
    const auto other = pledge(OwnPass::communicator, &mine, sizeof mine, {}, problem);
    if (other) {
      throw MismatchError("[Communicator construction] exchange is " + std::string(exchange_in(other->other)) +
                          ", rank 0 has " + exchange_in(other->first) + " (rank " + std::to_string(other->rank) +
                          " of " + std::to_string(size()) + ")");
    }
    options_.exchange = wanted;
  } catch (...) {
    release();
    throw;
  }
}

Group::~Group() { release(); }

/// Members that an operation without an end may still use stay for ever.
void Group::release() noexcept {
  own_.reset();
  if (!watch_.has_failed()) return;
  if (bulk_ != nullptr) {
    bulk_->give_up();
    keep_for_ever(std::move(bulk_));
    keep_for_ever(std::move(bulk_data_));
  }
  transport_->give_up();
  keep_for_ever(std::move(transport_));
}

std::optional<Group::Disagreement> Group::pledge(OwnPass pass, const void* mine, std::size_t bytes, Share share,
                                                 const std::optional<Problem>& problem, std::int64_t* count) {
  Pledge body;
  std::memcpy(body.first, mine, std::min(bytes, kPledgeBytes));
  std::memcpy(own_->message().body(), &body, sizeof body);
  const std::int64_t total = own_->merge(static_cast<std::int32_t>(pass), share, merge_pledges, problem);
  if (count != nullptr) *count = total;
  if (size() == 1) return std::nullopt;
  std::memcpy(&body, own_->message().body(), sizeof body);
  if (body.other_rank == MessageHeader::kNobody) return std::nullopt;
  Disagreement found;
  found.rank = body.other_rank;
  std::copy_n(body.first, kPledgeBytes, found.first);
  std::copy_n(body.other, kPledgeBytes, found.other);
  return found;
}

void Group::wait_for(std::unique_ptr<Channel>& channel, const std::string& place) {
  ChannelAwaited opening(channel.get(), place);
  try {
    watch_.wait(opening);
  } catch (...) {
    channel->give_up();
    keep_for_ever(std::move(channel));
    throw;
  }
}

std::unique_ptr<Channel> Group::open_channel(const std::string& place) {
  watch_.throw_if_failed();
  const ChannelAwaited making(nullptr, place);
  std::unique_ptr<Channel> channel = watch_.call(making, [&] { return transport_->open_channel(); });
  wait_for(channel, place);
  return channel;
}

void Group::merge(std::byte* data, std::size_t bytes, Merge merge_data, Exchange exchange, const std::string& place) {
  if (bulk_ == nullptr) bulk_ = open_channel(place);
  // A copy of our own: the caller's memory need not live as long as a lost operation.
  bulk_data_.resize((bytes + 7) / 8);
  auto* copy = reinterpret_cast<std::byte*>(bulk_data_.data());
  std::memcpy(copy, data, bytes);
  ChannelAwaited awaited(bulk_.get(), place);
  watch_.throw_if_failed();
  watch_.call(awaited, [&] { bulk_->start_merge(copy, bytes, merge_data, exchange); });
  watch_.wait(awaited);
  std::memcpy(data, copy, bytes);
}

void Group::enter(Rounds& rounds) {
  const std::lock_guard lock(mutex_);
  rounds_.push_back(&rounds);
}

void Group::leave(Rounds& rounds) noexcept {
  const std::lock_guard lock(mutex_);
  rounds_.erase(std::remove(rounds_.begin(), rounds_.end(), &rounds), rounds_.end());
}

std::string Group::describe(const RoundKey& key, const Describe& otherwise) {
  const std::lock_guard lock(mutex_);
  for (const Rounds* rounds : rounds_) {
    if (rounds->number() == key.channel) return rounds->describe(key);
  }
  return otherwise(key);
}

int Group::join() {
  if (size() == 1) return 0;
  watch_.throw_if_failed();
  if (!transport_->has_independent_channels()) {
    throw StateError("[Communicator join] needs MPI: it answers in all layers at once");
  }
  // If an error has ended an earlier call, then some channels may have had their last round in that one.
  std::vector<Rounds*> open;
  {
    const std::lock_guard lock(mutex_);
    for (Rounds* rounds : rounds_) {
      if (rounds->is_in_use()) {
        throw StateError(rounds->describe() + " has not been finished, so this rank cannot join");
      }
      if (!rounds->is_over()) open.push_back(rounds);
    }
  }
  has_to_join_again_ = true;
  while (!open.empty()) {
    for (Rounds* rounds : open) rounds->begin_absent();
    OpenRounds any(open);
    watch_.wait(any);
    const auto is_over = [](Rounds* rounds) { return rounds->progress() && !rounds->finish_absent(); };
    open.erase(std::remove_if(open.begin(), open.end(), is_over), open.end());
  }
  return end_join();
}

/// Ranks only ever drop out between two ends, so of the layers' lowest ranks with data the highest is that of the last
/// step, whichever layers were in it.
int Group::end_join() {
  const std::lock_guard lock(mutex_);
  int last = -1;
  for (Rounds* rounds : rounds_) last = std::max(last, rounds->end_join());
  if (last >= 0) last_rank_with_data_ = last;
  has_to_join_again_ = false;
  return last_rank_with_data_;
}

}  // namespace syncbn::comm
