// SPDX-License-Identifier: MIT
// One number per channel, f32 or f64: parameters, their gradients, running statistics.
#pragma once

#include <cstddef>
#include <vector>

#include "syncbn/error.hpp"
#include "syncbn/tensor_view.hpp"

namespace syncbn {

/// C numbers of one element type. Arithmetic on them is done in double: `operator[]` widens (exactly), `set` rounds
/// once.
class ChannelVector {
 public:
  ChannelVector() = default;
  ChannelVector(DataType type, Index size, double value) { assign(type, size, value); }

  Index size() const noexcept { return static_cast<Index>(type_ == DataType::f64 ? f64_.size() : f32_.size()); }
  DataType type() const noexcept { return type_; }

  /// Makes it `size` times `value`. Keeps the storage if it is large enough. Throws OptionError for bf16 and f16.
  void assign(DataType type, Index size, double value) {
    if (type != parameter_type_for(type)) {
      throw OptionError(std::string("[ChannelVector] type is ") + name_of(type) + ", it must be f32 or f64");
    }
    type_ = type;
    f32_.assign(type == DataType::f64 ? 0 : static_cast<std::size_t>(size), static_cast<float>(value));
    f64_.assign(type == DataType::f64 ? static_cast<std::size_t>(size) : 0, value);
  }

  double operator[](Index c) const noexcept {
    const auto i = static_cast<std::size_t>(c);
    return type_ == DataType::f64 ? f64_[i] : static_cast<double>(f32_[i]);
  }
  void set(Index c, double value) noexcept {
    const auto i = static_cast<std::size_t>(c);
    if (type_ == DataType::f64) {
      f64_[i] = value;
    } else {
      f32_[i] = static_cast<float>(value);
    }
  }

  /// The numbers themselves. Throws StateError if T is not the element type.
  template <class T>
  T* data() {
    return const_cast<T*>(static_cast<const ChannelVector*>(this)->data<T>());
  }
  template <class T>
  const T* data() const {
    if (DataTypeOf<T>::value != type_) {
      throw StateError(std::string("[ChannelVector] asked for ") + name_of(DataTypeOf<T>::value) +
                       ", the numbers are " + name_of(type_));
    }
    if constexpr (std::is_same_v<T, double>) {
      return f64_.data();
    } else {
      return f32_.data();
    }
  }

 private:
  DataType type_ = DataType::f32;
  std::vector<float> f32_;
  std::vector<double> f64_;
};

}  // namespace syncbn
