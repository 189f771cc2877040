// Squared distances between queries, points and boxes, plain and periodic.
//
// They are sums over the axes in order, never fused, so that torch arrives at
// the same bits. The bounds that prune evaluate the very same expression at
// the nearest coordinates; rounding is monotone, so a bound never exceeds the
// distance of a point that it stands for.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "neighbors_forest.h"

#if defined(_MSC_VER)
#include <intrin.h>
#endif

// GCC may unroll a short loop early, and then vectorizes it no more.
#if defined(__GNUC__) && !defined(__clang__)
#define TGE_ROLLED _Pragma("GCC unroll 1")
#else
#define TGE_ROLLED
#endif

namespace tge {
namespace neighbors {

TGE_INLINE int lowest_byte(uint64_t word) {  // index of the first set byte
#if defined(_MSC_VER)
  unsigned long bit;
  _BitScanForward64(&bit, word);
  return static_cast<int>(bit / 8);
#else
  return __builtin_ctzll(word) / 8;
#endif
}

// Calls `fn` for the lanes whose distance is at most `bound`.
template <class T, class Fn>
TGE_INLINE void for_each_within(const T* d, T bound, Fn&& fn) {
  uint8_t hit[kLanes];
  TGE_ROLLED
  for (int j = 0; j < kLanes; ++j) hit[j] = d[j] <= bound;
  uint64_t words[2];
  std::memcpy(words, hit, sizeof(words));
  for (int w = 0; w < 2; ++w)
    for (uint64_t bits = words[w]; bits; bits &= bits - 1)
      fn(8 * w + lowest_byte(bits));
}

// D = 0 is any dimension.
template <class T, int D, bool Periodic>
class Metric {
 public:
  explicit Metric(int64_t dim) : dim_(D ? D : dim) {}

  TGE_INLINE int64_t dim() const { return D ? D : dim_; }

  // Takes the sides of a cloud's periodic cell.
  TGE_INLINE void enter(const T* cell) { cell_ = cell; }

  // Squared distances from a query to the points of a block.
  TGE_INLINE void distances(const T* y, const T* x, T* d) const {
    if (D) {
      for (int j = 0; j < kLanes; ++j) {
        T sum = 0;
        for (int a = 0; a < D; ++a)
          sum += squared(x[a], y[a * kLanes + j], a);
        d[j] = sum;
      }
      return;
    }
    for (int j = 0; j < kLanes; ++j) d[j] = 0;
    for (int64_t a = 0; a < dim_; ++a)
      for (int j = 0; j < kLanes; ++j)
        d[j] += squared(x[a], y[a * kLanes + j], a);
  }

  // The least squared distance from the box [from, to] to a node's.
  TGE_INLINE T nearest(const T* from, const T* to, const T* low) const {
    const T* high = low + dim();
    T sum = 0;
    for (int64_t a = 0; a < (D ? D : dim_); ++a) {
      T gap = std::max(low[a] - to[a], from[a] - high[a]);
      if (Periodic) {
        const T span = std::max(high[a] - from[a], to[a] - low[a]);
        const T around = cell_[a] - span;
        gap = around < gap ? around : gap;
      }
      gap = gap > 0 ? gap : 0;
      sum += gap * gap;
    }
    return sum;
  }

  // Least squared distances from a query to `kLanes` boxes.
  TGE_INLINE void gaps(const T* low, const T* x, T* d) const {
    const int64_t dim = D ? D : dim_;
    const T* high = low + dim * kLanes;
    if (D) {
      for (int j = 0; j < kLanes; ++j) {
        T sum = 0;
        for (int a = 0; a < D; ++a)
          sum += squared_gap(x[a], low[a * kLanes + j], high[a * kLanes + j],
                             a);
        d[j] = sum;
      }
      return;
    }
    for (int j = 0; j < kLanes; ++j) d[j] = 0;
    for (int64_t a = 0; a < dim; ++a)
      for (int j = 0; j < kLanes; ++j)
        d[j] += squared_gap(x[a], low[a * kLanes + j], high[a * kLanes + j],
                            a);
  }

  TGE_INLINE T diameter(const T* box) const {  // squared
    T sum = 0;
    for (int64_t a = 0; a < dim_; ++a) {
      const T side = box[dim_ + a] - box[a];
      sum += side * side;
    }
    return sum;
  }

 private:
  TGE_INLINE T squared(T x, T y, int64_t axis) const {
    T delta = std::fabs(x - y);
    if (Periodic) {
      const T around = cell_[axis] - delta;
      delta = around < delta ? around : delta;
    }
    return delta * delta;
  }

  TGE_INLINE T squared_gap(T x, T low, T high, int64_t axis) const {
    T gap = low - x > x - high ? low - x : x - high;
    if (Periodic) {
      const T span = high - x > x - low ? high - x : x - low;
      const T around = cell_[axis] - span;
      gap = around < gap ? around : gap;
    }
    gap = gap < 0 ? 0 : gap;  // stays NaN
    return gap * gap;
  }

  const int64_t dim_;
  const T* cell_ = nullptr;
};

}  // namespace neighbors
}  // namespace tge
