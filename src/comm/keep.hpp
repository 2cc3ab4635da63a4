// SPDX-License-Identifier: MIT
// Memory that an operation which never ended may still write to.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace syncbn::comm {

/// Keeps `object` until the process ends: an operation in flight cannot be called back, and its buffers must not become
/// somebody else's memory.
template <class T>
void keep_for_ever(T&& object) {
  static std::mutex mutex;
  static auto& kept = *new std::vector<std::shared_ptr<void>>;  // never destroyed, at exit neither
  auto owner = std::make_shared<std::decay_t<T>>(std::forward<T>(object));
  const std::lock_guard lock(mutex);
  kept.push_back(std::move(owner));
}

}  // namespace syncbn::comm
