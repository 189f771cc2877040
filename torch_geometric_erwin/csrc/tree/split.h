// One split of the ball tree: the widest axis, its median, and a stable
// partition of the points on either side.
//
// All points are ordered on an axis by (coordinate, the other coordinates in
// turn, the order in which they came). No two points are ever equal in that
// order, so a split does not depend on how it was found.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "tree/select.h"

namespace tge {

// A point that carries its coordinates: up to four dimensions.
template <class T, int D>
struct Packed {
  T x[D];
  int32_t id;
};

// A point whose coordinates stay where they are: more dimensions.
struct Indexed {
  int32_t id;
};

template <class T, class Point>
struct Space;

template <class T, int D>
struct Space<T, Packed<T, D>> {
  using Scalar = T;
  using Point = Packed<T, D>;
  explicit Space(int, const T*) {}
  static constexpr int kAxes = D;
  static constexpr int dim() { return D; }
  T at(const Point& p, int axis) const { return p.x[axis]; }
};

template <class T>
struct Space<T, Indexed> {
  using Scalar = T;
  using Point = Indexed;
  static constexpr int kAxes = 0;  // known only when running
  Space(int dim, const T* coords) : dim_(dim), coords_(coords) {}
  int dim() const { return dim_; }
  T at(const Point& p, int axis) const {
    return coords_[static_cast<int64_t>(p.id) * dim_ + axis];
  }
  int dim_;
  const T* coords_;
};

// A thread's working memory, reused from split to split.
template <class T>
struct Scratch {
  std::vector<T> keys, candidates, low, high;
  std::vector<double> along, parts;
  std::vector<uint16_t> buckets;
  std::vector<int32_t> ties;
  std::vector<uint8_t> goes_left;

  void reserve(int dim) {
    low.resize(dim);
    high.resize(dim);
  }

  // Room for a key and a bucket per point: the place that the points will
  // move to, where it is large enough.
  template <class P>
  std::pair<T*, uint16_t*> room(P* to, int64_t n) {
    if constexpr (sizeof(P) >= sizeof(T) + sizeof(uint16_t)) {
      T* first = reinterpret_cast<T*>(to);
      return {first, reinterpret_cast<uint16_t*>(first + n)};
    }
    if (static_cast<int64_t>(keys.size()) < n) {
      keys.resize(n);
      buckets.resize(n);
    }
    return {keys.data(), buckets.data()};
  }
};

// Where a node is cut: points below `key` go left, and of those at `key` the
// first `ties` in the order.
template <class T>
struct Cut {
  int axis;
  T key;
  int64_t ties;
};

#if defined(__GNUC__)
// Four scalars side by side; of a point in three dimensions the last is its
// number, which nobody looks at.
template <class T>
void bounds_of_four(const void* points, int64_t n, T* low, T* high, int dim) {
  typedef T V __attribute__((vector_size(4 * sizeof(T))));
  const auto* p = static_cast<const char*>(points);
  const auto load = [p](int64_t i, V& v) {
    std::memcpy(&v, p + i * static_cast<int64_t>(sizeof(V)), sizeof(V));
  };
  V x, y;
  load(0, x);
  V lo = x, hi = x, lo2 = x, hi2 = x;
  int64_t i = 1;
  for (; i + 1 < n; i += 2) {
    load(i, x);
    load(i + 1, y);
    lo = x < lo ? x : lo;
    hi = x > hi ? x : hi;
    lo2 = y < lo2 ? y : lo2;
    hi2 = y > hi2 ? y : hi2;
  }
  if (i < n) {
    load(i, x);
    lo = x < lo ? x : lo;
    hi = x > hi ? x : hi;
  }
  lo = lo2 < lo ? lo2 : lo;
  hi = hi2 > hi ? hi2 : hi;
  for (int a = 0; a < dim; ++a) {
    low[a] = lo[a];
    high[a] = hi[a];
  }
}
#endif

template <class S>
void bounds(const S& space, const typename S::Point* points, int64_t n,
            typename S::Scalar* low, typename S::Scalar* high) {
  using T = typename S::Scalar;
#if defined(__GNUC__)
  if constexpr (std::is_same_v<typename S::Point, Packed<T, 3>>)
    if (sizeof(Packed<T, 3>) == 4 * sizeof(T))
      return bounds_of_four<T>(points, n, low, high, 3);
#endif
  const int dim = space.dim();
  for (int a = 0; a < dim; ++a) low[a] = high[a] = space.at(points[0], a);
  for (int64_t i = 1; i < n; ++i)
    for (int a = 0; a < dim; ++a) {
      const T x = space.at(points[i], a);
      low[a] = x < low[a] ? x : low[a];
      high[a] = x > high[a] ? x : high[a];
    }
}

// The first axis of the largest extent. Halving before the subtraction, in
// double, keeps even the largest finite coordinates from overflowing.
template <class T>
int widest(const T* low, const T* high, int dim) {
  int axis = 0;
  double most = -1.0;
  for (int a = 0; a < dim; ++a) {
    const double extent = 0.5 * static_cast<double>(high[a]) -
                          0.5 * static_cast<double>(low[a]);
    if (extent > most) {
      most = extent;
      axis = a;
    }
  }
  return axis;
}

// Orders points with equal keys by the coordinates in turn, then as they came.
template <class S>
struct TieOrder {
  const S& space;
  const typename S::Point* points;
  bool operator()(int32_t i, int32_t j) const {
    for (int a = 0; a < space.dim(); ++a) {
      const auto x = space.at(points[i], a), y = space.at(points[j], a);
      if (x != y) return x < y;
    }
    return i < j;
  }
};

// Marks which of the points at the cut go left.
template <class S>
void settle_ties(const S& space, const typename S::Point* points, int64_t n,
                 const Cut<typename S::Scalar>& cut,
                 Scratch<typename S::Scalar>& scratch) {
  auto& ties = scratch.ties;
  ties.clear();
  for (int64_t i = 0; i < n; ++i)
    if (space.at(points[i], cut.axis) == cut.key)
      ties.push_back(static_cast<int32_t>(i));
  scratch.goes_left.assign(n, 0);
  if (cut.ties < static_cast<int64_t>(ties.size()))
    std::nth_element(ties.begin(), ties.begin() + cut.ties, ties.end(),
                     TieOrder<S>{space, points});
  for (int64_t i = 0; i < cut.ties; ++i) scratch.goes_left[ties[i]] = 1;
}

// Moves points[begin, end) to `left` and `right`, keeping their order. Which
// way a point goes is a coin toss, so the choice is made without a branch.
template <class S>
void move(const S& space, const typename S::Point* points, int64_t begin,
          int64_t end, const Cut<typename S::Scalar>& cut,
          const uint8_t* goes_left, typename S::Point* left,
          typename S::Point* right) {
  using P = typename S::Point;
  const auto key = cut.key;
  const int axis = cut.axis;
  const bool ties = cut.ties > 0;
  const auto put = [&](int64_t i, bool is_left) {
    const auto mask = static_cast<uintptr_t>(is_left) - 1;  // right: all ones
    const auto l = reinterpret_cast<uintptr_t>(left);
    const auto r = reinterpret_cast<uintptr_t>(right);
    *reinterpret_cast<P*>(l ^ ((l ^ r) & mask)) = points[i];
    left += is_left;
    right += !is_left;
  };
  if (!ties)
    for (int64_t i = begin; i < end; ++i)
      put(i, space.at(points[i], axis) < key);
  else
    for (int64_t i = begin; i < end; ++i) {
      const auto x = space.at(points[i], axis);
      put(i, (x < key) | ((x == key) & (goes_left[i] != 0)));
    }
}

// Splits `from` into the first `num_left` points of the order and the others.
template <class S>
void split(const S& space, const typename S::Point* from,
           typename S::Point* to, int64_t n, int64_t num_left,
           Scratch<typename S::Scalar>& scratch) {
  using T = typename S::Scalar;
  T* low = scratch.low.data();
  T* high = scratch.high.data();
  bounds(space, from, n, low, high);
  const int axis = widest(low, high, space.dim());
  if (!(high[axis] > low[axis])) {  // one point, many times
    std::copy(from, from + n, to);
    return;
  }
  const auto [keys, buckets] = scratch.room(to, n);
  for (int64_t i = 0; i < n; ++i) keys[i] = space.at(from[i], axis);
  const auto [key, below] = select(keys, buckets, scratch.candidates, n,
                                   num_left, low[axis], high[axis]);
  const Cut<T> cut{axis, key, num_left - below};
  if (cut.ties) settle_ties(space, from, n, cut, scratch);
  move(space, from, 0, n, cut, scratch.goes_left.data(), to, to + num_left);
}

}  // namespace tge
