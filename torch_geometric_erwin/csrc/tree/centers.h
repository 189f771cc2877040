// Centres of mass of the points in neighbouring slots.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tge {

// Sums are taken in halves, the first half of the slots plus the second, so
// that torch can round in the same way.
template <class T>
class Centers {
 public:
  Centers(int dim, int64_t stride)
      : dim_(dim), stride_(stride), shares_(stride), sums_(stride * dim) {
    while ((int64_t(1) << shift_) < stride) ++shift_;
  }

  int64_t group(int32_t slot) const { return slot >> shift_; }

  // The centre and the mass of n points of one group. A point's mass is one
  // where there is no `mass`.
  T run(const T* coords, const T* mass, const int32_t* slot, int64_t n,
        T* center) {
    if (n == 1) {
      for (int a = 0; a < dim_; ++a) center[a] = coords[a];
      return mass ? mass[0] : T(1);
    }
    if (stride_ == 2) return pair(coords, mass, center);
    return several(coords, mass, slot, n, center);
  }

 private:
  T pair(const T* coords, const T* mass, T* center) const {
    const T first = mass ? mass[0] : T(1), second = mass ? mass[1] : T(1);
    const T total = first + second;
    const T p = first / total, q = second / total;  // no sum can overflow
    for (int a = 0; a < dim_; ++a)
      center[a] = coords[a] * p + coords[dim_ + a] * q;
    return total;
  }

  T several(const T* coords, const T* mass, const int32_t* slot, int64_t n,
            T* center) {
    std::fill(shares_.begin(), shares_.end(), T(0));
    std::fill(sums_.begin(), sums_.end(), T(0));
    for (int64_t i = 0; i < n; ++i)
      shares_[slot[i] & (stride_ - 1)] = mass ? mass[i] : T(1);
    const T total = sum_halves(shares_.data(), 1);
    for (int64_t i = 0; i < n; ++i) {
      const T share = (mass ? mass[i] : T(1)) / total;
      T* sum = &sums_[(slot[i] & (stride_ - 1)) * dim_];
      for (int a = 0; a < dim_; ++a) sum[a] = coords[i * dim_ + a] * share;
    }
    sum_halves(sums_.data(), dim_);
    std::copy_n(sums_.data(), dim_, center);
    return total;
  }

  T sum_halves(T* rows, int64_t width) const {
    for (int64_t h = stride_ / 2; h >= 1; h /= 2)
      for (int64_t j = 0; j < h * width; ++j) rows[j] += rows[j + h * width];
    return rows[0];
  }

  const int dim_;
  const int64_t stride_;
  int shift_ = 0;
  std::vector<T> shares_, sums_;
};

}  // namespace tge
