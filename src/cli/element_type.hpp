// SPDX-License-Identifier: MIT
// From a DataType to the C++ type.
#pragma once

#include "syncbn/tensor_view.hpp"

namespace syncbn::cli {

/// Calls run(T()), T the C++ type of `type`, and returns what it returns.
template <class Run>
auto with_element_type(DataType type, const Run& run) {
  switch (type) {
    case DataType::f64:
      return run(double());
    case DataType::bf16:
      return run(bfloat16());
    case DataType::f16:
      return run(float16());
    case DataType::f32:
      break;
  }
  return run(float());
}

}  // namespace syncbn::cli
