// The last levels of the tree: at most 32 points, as bits of a word.
//
// Each axis ranks the points once. A node is then a set of bits, one word per
// axis, with the points in that axis' order: its extent runs from the lowest
// to the highest bit, its median is the bit that leaves the right number of
// bits below, and no coordinate is compared again.
#pragma once

#include "tree/split.h"

namespace tge {

#if defined(_MSC_VER)
#include <intrin.h>
inline int lowest_bit(uint32_t bits) {
  unsigned long i;
  _BitScanForward(&i, bits);
  return static_cast<int>(i);
}
inline int highest_bit(uint32_t bits) {
  unsigned long i;
  _BitScanReverse(&i, bits);
  return static_cast<int>(i);
}
#else
inline int lowest_bit(uint32_t bits) { return __builtin_ctz(bits); }
inline int highest_bit(uint32_t bits) { return 31 - __builtin_clz(bits); }
#endif

// below[j] += how many of the n keys are below key[j], for kMost keys.
// Processors that compare more keys at once get a version of their own.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && \
    !defined(__clang__)
#define TGE_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define TGE_CLONES
#endif

template <int kWidth, class T>
inline void count_below(const T* key, int n, int32_t* below) {
  for (int i = 0; i < n; ++i) {
    const T pivot = key[i];
    for (int j = 0; j < kWidth; ++j) below[j] += pivot < key[j];
  }
}

#define TGE_COUNT_BELOW(T)                                              \
  TGE_CLONES inline void count_below_16(const T* key, int n,            \
                                        int32_t* below) {               \
    count_below<16>(key, n, below);                                     \
  }                                                                     \
  TGE_CLONES inline void count_below_32(const T* key, int n,            \
                                        int32_t* below) {               \
    count_below<32>(key, n, below);                                     \
  }
TGE_COUNT_BELOW(float)
TGE_COUNT_BELOW(double)
#undef TGE_COUNT_BELOW
#undef TGE_CLONES

template <class S>
class Tiny {
 public:
  using T = typename S::Scalar;
  using P = typename S::Point;
  static constexpr int kMost = 32;
  static constexpr int kAxes = S::kAxes;

  // Writes the ids of n points in the order of the tree.
  void run(const S& space, const P* points, int n, int32_t* order) {
    order_ = order;
    for (int i = 0; i < n; ++i) id_[i] = points[i].id;
    for (int a = 0; a < kAxes; ++a) rank_axis(space, points, n, a);
    uint32_t node[kAxes];
    for (int a = 0; a < kAxes; ++a)
      node[a] = n == 32 ? ~uint32_t(0) : (uint32_t(1) << n) - 1;
    descend(node, n);
  }

 private:
  void rank_axis(const S& space, const P* points, int n, int axis) {
    T key[kMost];
    int32_t below[kMost] = {};
    for (int i = 0; i < n; ++i) key[i] = space.at(points[i], axis);
    for (int i = n; i < kMost; ++i) key[i] = std::numeric_limits<T>::max();
    if (n <= 16)
      count_below_16(key, n, below);
    else
      count_below_32(key, n, below);
    uint32_t taken = 0;
    for (int i = 0; i < n; ++i) taken |= uint32_t(1) << below[i];
    if (taken != (n == 32 ? ~uint32_t(0) : (uint32_t(1) << n) - 1))
      break_ties(space, points, n, axis, below);
    for (int i = 0; i < n; ++i) {
      bit_[axis][i] = uint32_t(1) << below[i];
      point_[axis][below[i]] = static_cast<uint8_t>(i);
      half_[axis][below[i]] = 0.5 * static_cast<double>(key[i]);
    }
  }

  static void break_ties(const S& space, const P* points, int n, int axis,
                         int32_t* rank) {
    int32_t order[kMost];
    for (int i = 0; i < n; ++i) order[i] = i;
    const TieOrder<S> ties{space, points};
    std::sort(order, order + n, [&](int32_t i, int32_t j) {
      const T x = space.at(points[i], axis), y = space.at(points[j], axis);
      return x != y ? x < y : ties(i, j);
    });
    for (int i = 0; i < n; ++i) rank[order[i]] = i;
  }

  void descend(const uint32_t* node, int n) {
    if (n == 1) {
      *order_++ = id_[point_[0][lowest_bit(node[0])]];
      return;
    }
    const int axis = widest_axis(node);
    if (n == 2) {
      *order_++ = id_[point_[axis][lowest_bit(node[axis])]];
      *order_++ = id_[point_[axis][highest_bit(node[axis])]];
      return;
    }
    uint32_t left[kAxes] = {}, right[kAxes];
    uint32_t bits = node[axis];
    for (int i = n / 2; i > 0; --i) {
      const int point = point_[axis][lowest_bit(bits)];
      bits &= bits - 1;
      for (int a = 0; a < kAxes; ++a) left[a] |= bit_[a][point];
    }
    for (int a = 0; a < kAxes; ++a) right[a] = node[a] & ~left[a];
    descend(left, n / 2);
    descend(right, n - n / 2);
  }

  // As `widest`.
  int widest_axis(const uint32_t* node) const {
    int axis = 0;
    double most = -1.0;
    for (int a = 0; a < kAxes; ++a) {
      const double extent = half_[a][highest_bit(node[a])] -
                            half_[a][lowest_bit(node[a])];
      axis = extent > most ? a : axis;
      most = extent > most ? extent : most;
    }
    return axis;
  }

  int32_t* order_ = nullptr;
  int32_t id_[kMost];
  uint32_t bit_[kAxes][kMost];   // of a point, in an axis' order
  uint8_t point_[kAxes][kMost];  // at a place in an axis' order
  double half_[kAxes][kMost];    // its coordinate, halved
};

}  // namespace tge
