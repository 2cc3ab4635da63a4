// SPDX-License-Identifier: MIT
// What a rank tells another outside of the operations of all: where it waits, that it has left, what has failed.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "syncbn/error.hpp"

namespace syncbn::comm {

/// The number of the group's own channel, the first that is opened.
constexpr std::int32_t kOwnChannel = 0;

/// 512 bytes, so small that it is sent without waiting for its receiver.
struct Note {
  enum class Kind : std::int32_t {
    waiting,  ///< Somebody's deadline has passed; the text says where the sender waits. Who gets it and waits, too, answers.
    verdict,  ///< The group has failed: code and text of the error.
    alive,    ///< The sender is busy, but there.
    left,     ///< An exception has destroyed the sender's side of `channel` after `rounds` rounds; text says which.
  };

  Kind kind = Kind::waiting;
  std::int32_t from = 0;
  ErrorCode code = ErrorCode::none;
  std::int32_t channel = 0;  ///< That the sender waits for (-1: none), or has left.
  std::int64_t rounds = 0;
  std::int64_t group = 0;     ///< Of the groups that use the same communicator for notes; the transport fills it in.
  double deadline = 0;        ///< The sender's, in seconds; of waiting.
  std::int32_t fits_all = 0;  ///< Is the sender in step with whatever the others wait for? Of waiting.
  char text[468] = {};

  Note() = default;
  Note(Kind kind_of_note, int sender, const std::string& words) : kind(kind_of_note), from(sender) {
    words.copy(text, sizeof text - 1);
  }
};
static_assert(sizeof(Note) == 512);
static_assert(std::is_trivially_copyable_v<Note>);

}  // namespace syncbn::comm
