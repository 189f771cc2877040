// What a neighbour search reads: its arguments, the points in blocks of
// `kLanes`, one axis after the other, the boxes of the tree's nodes, and the
// queries in groups of neighbours.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "common/isa.h"
#include "common/parallel.h"

namespace tge {
namespace neighbors {

constexpr int kLanes = 16;
constexpr int64_t kGroup = 16;  // queries that share a walk of the tree
constexpr int64_t kUnlimited = INT64_MAX / 8;  // so many neighbours are all

template <class T>
struct Lane;  // integers as wide as the coordinates, for ids and bit patterns
template <>
struct Lane<float> {
  using Id = int32_t;
};
template <>
struct Lane<double> {
  using Id = int64_t;
};
template <class T>
using Id = typename Lane<T>::Id;

struct Group {
  int64_t begin, end, cloud, leaf;
};

// A node of the tree over the leaves [a, b); nodes are in preorder.
struct Node {
  int64_t index, a, b;

  TGE_INLINE Node left() const { return {index + 1, a, middle()}; }
  TGE_INLINE Node right() const {
    return {index + 2 * (middle() - a), middle(), b};
  }

 private:
  TGE_INLINE int64_t middle() const { return a + (b - a) / 2; }
};

// The arguments of one search; `radius` is squared. See `cpu.py`. Lattices
// have `vectors` that span them, short ones, rows that give coordinates along
// these, `dual`, and are `whole` times their user's vectors.
struct Search {
  const void *pos, *query;
  const int64_t *leaf_ptr, *cloud_leaf, *id, *query_ptr, *query_id;
  const double *vectors, *dual;
  const int64_t* whole;
  int64_t num_clouds, dim, k;
  double radius;
  bool itself, loop, shifts;
  int num_threads, most;

  TGE_INLINE Node root(int64_t cloud) const {
    return {2 * cloud_leaf[cloud], cloud_leaf[cloud], cloud_leaf[cloud + 1]};
  }
  TGE_INLINE int64_t points(const Node& node) const {
    return leaf_ptr[node.b] - leaf_ptr[node.a];
  }
};

// The points in blocks, and the boxes of all nodes.
template <class T>
struct Forest {
  int64_t dim;
  std::vector<int64_t> first;      // leaf -> first block
  std::unique_ptr<T[]> coords;     // [blocks, dim, kLanes]
  std::unique_ptr<int32_t[]> id;   // [blocks, kLanes]
  std::unique_ptr<T[]> boxes;      // [nodes, 2, dim]
  std::unique_ptr<int32_t[]> least;  // [nodes], the smallest of its ids

  TGE_INLINE T* box(const Node& node) { return &boxes[node.index * 2 * dim]; }
  TGE_INLINE const T* box(const Node& node) const {
    return &boxes[node.index * 2 * dim];
  }
  TGE_INLINE const T* block(int64_t block) const {
    return &coords[block * dim * kLanes];
  }
};

template <class T>
void fill_leaf(const Search& s, Forest<T>& f, int64_t leaf) {
  const T* pos = static_cast<const T*>(s.pos);
  const int64_t begin = s.leaf_ptr[leaf], end = s.leaf_ptr[leaf + 1];
  const int64_t lanes = (f.first[leaf + 1] - f.first[leaf]) * kLanes;
  for (int64_t j = 0; j < lanes; ++j) {
    const int64_t block = f.first[leaf] + j / kLanes, lane = j % kLanes;
    T* to = &f.coords[block * f.dim * kLanes + lane];
    const bool real = begin + j < end;
    f.id[block * kLanes + lane] = real ? int32_t(s.id[begin + j]) : -1;
    // Nothing is at most a bound once it is NaN: unused lanes drop out.
    for (int64_t a = 0; a < f.dim; ++a)
      to[a * kLanes] = real ? pos[(begin + j) * f.dim + a]
                            : std::numeric_limits<T>::quiet_NaN();
  }
}

template <class T>
void surround(const T* pos, int64_t begin, int64_t end, int64_t dim, T* box) {
  for (int64_t a = 0; a < dim; ++a) {
    T low = pos[begin * dim + a], high = low;
    for (int64_t i = begin + 1; i < end; ++i) {
      low = std::min(low, pos[i * dim + a]);
      high = std::max(high, pos[i * dim + a]);
    }
    box[a] = low;
    box[dim + a] = high;
  }
}

template <class T>
void fill_boxes(const Search& s, Forest<T>& f, const Node& node) {
  T* box = f.box(node);
  if (node.b - node.a == 1) {
    const int64_t begin = s.leaf_ptr[node.a], end = s.leaf_ptr[node.b];
    surround(static_cast<const T*>(s.pos), begin, end, f.dim, box);
    f.least[node.index] =
        int32_t(*std::min_element(s.id + begin, s.id + end));
    return;
  }
  const Node left = node.left(), right = node.right();
  fill_boxes(s, f, left);
  fill_boxes(s, f, right);
  const T *l = f.box(left), *r = f.box(right);
  for (int64_t i = 0; i < f.dim; ++i) {
    box[i] = std::min(l[i], r[i]);
    box[f.dim + i] = std::max(l[f.dim + i], r[f.dim + i]);
  }
  f.least[node.index] = std::min(f.least[left.index], f.least[right.index]);
}

template <class T>
Forest<T> plant(const Search& s, Team& team) {
  const int64_t leaves = s.cloud_leaf[s.num_clouds];
  Forest<T> f;
  f.dim = s.dim;
  f.first.resize(leaves + 1, 0);
  for (int64_t l = 0; l < leaves; ++l) {
    const int64_t points = s.leaf_ptr[l + 1] - s.leaf_ptr[l];
    f.first[l + 1] = f.first[l] + (points + kLanes - 1) / kLanes;
  }
  const int64_t lanes = f.first[leaves] * kLanes;
  f.coords.reset(new T[lanes * s.dim]);
  f.id.reset(new int32_t[lanes]);
  f.boxes.reset(new T[2 * leaves * 2 * s.dim]);
  f.least.reset(new int32_t[2 * leaves]);
  team.chunks(leaves, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t l = begin; l < end; ++l) fill_leaf(s, f, l);
  });
  team.chunks(s.num_clouds, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t c = begin; c < end; ++c)
      if (s.cloud_leaf[c] < s.cloud_leaf[c + 1]) fill_boxes(s, f, s.root(c));
  });
  return f;
}

// Points against themselves: the queries of a leaf are a group.
inline std::vector<Group> group_leaves(const Search& s) {
  std::vector<Group> groups;
  for (int64_t c = 0; c < s.num_clouds; ++c)
    for (int64_t l = s.cloud_leaf[c]; l < s.cloud_leaf[c + 1]; ++l)
      groups.push_back({s.leaf_ptr[l], s.leaf_ptr[l + 1], c, l});
  return groups;
}

inline std::vector<Group> group_queries(const Search& s) {
  std::vector<Group> groups;
  for (int64_t c = 0; c < s.num_clouds; ++c)
    for (int64_t q = s.query_ptr[c]; q < s.query_ptr[c + 1]; q += kGroup)
      groups.push_back({q, std::min(q + kGroup, s.query_ptr[c + 1]), c, -1});
  return groups;
}

}  // namespace neighbors
}  // namespace tge
