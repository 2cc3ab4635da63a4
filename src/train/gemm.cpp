// SPDX-License-Identifier: MIT
#include "gemm.hpp"

#include <Eigen/Core>

namespace syncbn::train {

namespace {

template <class T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
using Factor = Eigen::Map<const RowMajor<T>, Eigen::Aligned64>;

template <class T>
using Result = Eigen::Map<RowMajor<T>, Eigen::Aligned64>;

/// Eigen cuts long sums by the sizes of the caches it finds, and with them the order of additions: say fixed sizes.
void fix_block_sizes() {
  static const bool done = [] {
    Eigen::setCpuCacheSizes(32 << 10, 256 << 10, 2 << 20);
    return true;
  }();
  static_cast<void>(done);
}

template <class T>
Factor<T> map(const ConstMatrix<T>& matrix) {
  return Factor<T>(matrix.data, matrix.rows, matrix.columns);
}

template <class T, class Product>
void assign(T* c, const Product& product, Accumulate accumulate) {
  fix_block_sizes();
  Result<T> result(c, product.rows(), product.cols());
  if (accumulate == Accumulate::yes) {
    result.noalias() += product;
  } else {
    result.noalias() = product;
  }
}

}  // namespace

template <class T>
void multiply(const ConstMatrix<T>& a, const ConstMatrix<T>& b, T* c, Accumulate accumulate) {
  assign(c, map(a) * map(b), accumulate);
}

template <class T>
void multiply_tn(const ConstMatrix<T>& a, const ConstMatrix<T>& b, T* c, Accumulate accumulate) {
  assign(c, map(a).transpose() * map(b), accumulate);
}

template <class T>
void multiply_nt(const ConstMatrix<T>& a, const ConstMatrix<T>& b, T* c, Accumulate accumulate) {
  assign(c, map(a) * map(b).transpose(), accumulate);
}

template void multiply(const ConstMatrix<float>&, const ConstMatrix<float>&, float*, Accumulate);
template void multiply(const ConstMatrix<double>&, const ConstMatrix<double>&, double*, Accumulate);
template void multiply_tn(const ConstMatrix<float>&, const ConstMatrix<float>&, float*, Accumulate);
template void multiply_tn(const ConstMatrix<double>&, const ConstMatrix<double>&, double*, Accumulate);
template void multiply_nt(const ConstMatrix<float>&, const ConstMatrix<float>&, float*, Accumulate);
template void multiply_nt(const ConstMatrix<double>&, const ConstMatrix<double>&, double*, Accumulate);

}  // namespace syncbn::train
