// One thread's searches: groups of neighbouring queries go through the tree
// together.
//
// A group collects the blocks that any of its queries may need once, and each
// query then scans them without a branch per point.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "neighbors_candidates.h"
#include "neighbors_forest.h"
#include "neighbors_metric.h"
#include "neighbors_ties.h"

namespace tge {
namespace neighbors {

TGE_INLINE void prefetch(const void* address) {
#if !defined(_MSC_VER)
  __builtin_prefetch(address, 1);
#endif
}

// D = 0 is any dimension.
template <class T, int D, bool Periodic>
class Searcher {
 public:
  Searcher(const Search& s, const Forest<T>& f)
      : s_(s), f_(f), metric_(s.dim), box_(2 * s.dim), ties_(s, f, metric_) {}

  TGE_INLINE void run(const Group& group) {
    if (s_.cloud_leaf[group.cloud] == s_.cloud_leaf[group.cloud + 1]) {
      for (int64_t q = group.begin; q < group.end; ++q)
        if (s_.counts) s_.counts[s_.query_id[q]] = 0;
      return;
    }
    if (Periodic)
      metric_.enter(static_cast<const T*>(s_.box) +
                    group.cloud * metric_.dim());
    todo_.assign(1, group);
    while (!todo_.empty()) {
      const Group next = todo_.back();
      todo_.pop_back();
      step(next);
    }
  }

 private:
  TGE_INLINE const T* query(int64_t q) const {
    return static_cast<const T*>(s_.query) + q * metric_.dim();
  }

  // Searches a group, or halves it: what is far apart shares no work.
  TGE_INLINE void step(const Group& group) {
    surround(query(0), group.begin, group.end, metric_.dim(), box_.data());
    const bool single = group.end - group.begin == 1;
    // Leaves are compact; other queries may come in any order.
    const bool far = !single && group.leaf < 0 && scattered(group);
    if (far) return halve(group);
    const T bound = bounds(group);
    if (collect(group, bound, most_blocks(single))) {
      if (!s_.counts) fetch_places(group);
      for (int64_t q = group.begin; q < group.end; ++q) answer(q, group);
    } else if (single || tied_) {
      for (int64_t q = group.begin; q < group.end; ++q) answer_tied(q, group);
    } else {
      halve(group);
    }
  }

  TGE_INLINE void halve(const Group& group) {
    const int64_t middle = (group.begin + group.end) / 2;
    todo_.push_back({middle, group.end, group.cloud, group.leaf});
    todo_.push_back({group.begin, middle, group.cloud, group.leaf});
  }

  // How many blocks to scan for each query of a group. Where points tie, more
  // than a few are better searched in order, once for queries in one place.
  TGE_INLINE int64_t most_blocks(bool single) const {
    const bool spot = metric_.diameter(box_.data()) == 0;
    if (tied_) return (spot ? 64 : 256) + s_.k / 4;
    if (!single) return 1024 + std::min(s_.k, kMaxRank);
    return s_.k < INT64_MAX / 8 ? 1024 + s_.k : INT64_MAX;
  }

  // Whether a group is much wider than what its queries look for.
  TGE_INLINE bool scattered(const Group& group) {
    const Node root = s_.root(group.cloud);
    T reach = static_cast<T>(s_.radius);
    if (s_.points(root) - 1 > s_.k) {
      const Node seed = seeds(group, root);
      reach = std::min(reach, metric_.diameter(f_.box(seed)));
    }
    return metric_.diameter(box_.data()) > 4 * reach;
  }

  // Results lie in the queries' original order, far from each other.
  TGE_INLINE void fetch_places(const Group& group) {
    const int64_t ahead = std::min<int64_t>(s_.k, 64);
    for (int64_t q = group.begin; q < group.end; ++q) {
      const int64_t start = s_.offset[s_.query_id[q]];
      for (int64_t i = 0; i <= ahead; i += 8) {
        prefetch(s_.out_query + start + i);
        prefetch(s_.out_neighbor + start + i);
      }
    }
  }

  // For each query a distance within which its neighbours are; their maximum.
  // It is negative where the neighbours were to be counted, and k are near.
  TGE_INLINE T bounds(const Group& group) {
    const T radius = static_cast<T>(s_.radius);
    const Node root = s_.root(group.cloud);
    bound_.assign(group.end - group.begin, radius);
    tied_ = false;
    // One more than k: one of them may be the query itself.
    if (s_.points(root) - 1 <= s_.k) return radius;
    const Node seed = seeds(group, root);
    T widest = -1;
    for (int64_t q = group.begin; q < group.end; ++q) {
      T& bound = bound_[q - group.begin];
      const Limit<T> limit = seed_bound(q, seed);
      if (limit.value <= radius) {
        bound = s_.counts ? -1 : limit.value;
        tied_ |= !limit.tight;
      }
      widest = std::max(widest, bound);
    }
    return widest;
  }

  // The smallest node around the group with comfortably many points.
  TGE_INLINE Node seeds(const Group& group, Node node) {
    const int64_t wanted = 4 * s_.k + 2;
    while (node.b - node.a > 1) {
      const Node left = node.left(), right = node.right();
      const bool go_left = group.leaf >= 0 ? group.leaf < right.a
                                           : nearest(left) <= nearest(right);
      const Node next = go_left ? left : right;
      if (s_.points(next) < wanted) break;
      node = next;
    }
    return node;
  }

  TGE_INLINE Limit<T> seed_bound(int64_t q, const Node& seed) {
    const int64_t begin = f_.first[seed.a], end = f_.first[seed.b];
    near_.reserve((end - begin) * kLanes);
    T* to = near_.dist.data();
    for (int64_t b = begin; b < end; ++b, to += kLanes)
      metric_.distances(f_.block(b), query(q), to);
    return near_.within(to - near_.dist.data(), s_.k + 1,
                        (s_.k + 1) / 8 + 1);
  }

  // The least squared distance from the group's box to a node's.
  TGE_INLINE T nearest(const Node& node) const {
    return metric_.nearest(box_.data(), box_.data() + metric_.dim(),
                           f_.box(node));
  }

  // The blocks that are within `bound` of the group; false if over `cap`.
  TGE_INLINE bool collect(const Group& group, T bound, int64_t cap) {
    blocks_.clear();
    corners_.clear();
    stack_.assign(1, s_.root(group.cloud));
    while (!stack_.empty()) {
      const Node node = stack_.back();
      stack_.pop_back();
      if (nearest(node) > bound) continue;
      if (node.b - node.a > 1) {
        stack_.push_back(node.right());
        stack_.push_back(node.left());
        continue;
      }
      for (int64_t b = f_.first[node.a]; b < f_.first[node.b]; ++b)
        push(b, f_.box(node));
      if (static_cast<int64_t>(blocks_.size()) > cap) return false;
    }
    return true;
  }

  // Lists a block and the box of its leaf, `kLanes` boxes side by side.
  TGE_INLINE void push(int64_t block, const T* box) {
    const int64_t dim = metric_.dim();
    const int64_t lane = blocks_.size() % kLanes;
    if (lane == 0)
      corners_.resize(corners_.size() + 2 * dim * kLanes,
                      std::numeric_limits<T>::quiet_NaN());
    T* to = corners_.data() + corners_.size() - 2 * dim * kLanes + lane;
    for (int64_t i = 0; i < 2 * dim; ++i) to[i * kLanes] = box[i];
    blocks_.push_back(block);
  }

  // Of the group's blocks, those that are within `bound` of one query.
  TGE_INLINE void select(const T* x, T bound) {
    const int64_t n = blocks_.size();
    reach_.resize(n);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i += kLanes) {
      T d[kLanes];
      metric_.gaps(corners_.data() + i * 2 * metric_.dim(), x, d);
      for_each_within(d, bound,
                      [&](int j) { reach_[kept++] = blocks_[i + j]; });
    }
    reach_.resize(kept);
  }

  TGE_INLINE void answer(int64_t q, const Group& group) {
    const T bound = bound_[q - group.begin];
    const int64_t id = s_.query_id[q];
    if (s_.counts) {
      s_.counts[id] = bound < 0 ? s_.k : std::min(count(q, bound), s_.k);
      return;
    }
    const int64_t n = gather(q, bound), start = s_.offset[id];
    std::fill_n(s_.out_query + start, std::min(n, s_.k), id);
    near_.write(n, s_.k, s_.out_neighbor + start);
  }

  TGE_INLINE int64_t count(int64_t q, T bound) {
    const T* x = query(q);
    int64_t n = s_.loop ? 0 : -1;  // the query itself is always within
    select(x, bound);
    for (const int64_t b : reach_) {
      T d[kLanes];
      metric_.distances(f_.block(b), x, d);
      int hits = 0;
      TGE_ROLLED
      for (int j = 0; j < kLanes; ++j) hits += d[j] <= bound;
      n += hits;
    }
    return n;
  }

  // Stores the candidates within `bound`; returns how many there are.
  TGE_INLINE int64_t gather(int64_t q, T bound) {
    const Id<T> self = s_.loop ? -1 : static_cast<Id<T>>(s_.query_id[q]);
    // Duplicates may tie by the thousands: keep k of them at a time.
    const int64_t limit = s_.k < INT64_MAX / 8 ? 4 * s_.k + 4 * kMaxRank
                                               : INT64_MAX;
    const T* x = query(q);
    select(x, bound);
    int64_t n = 0;
    for (const int64_t b : reach_) {
      if (n > limit) {
        n = near_.shrink(n, s_.k);
        bound = near_.dist[n - 1];
      }
      T d[kLanes];
      metric_.distances(f_.block(b), x, d);
      near_.reserve(n + kLanes);
      T* dist = near_.dist.data();
      Id<T>* ids = near_.id.data();
      const Id<T>* id = &f_.id[b * kLanes];
      for_each_within(d, bound, [&](int j) {
        dist[n] = d[j];
        ids[n] = id[j];
        n += id[j] != self;
      });
    }
    return n;
  }

  void answer_tied(int64_t q, const Group& group) {
    const T bound = bound_[q - group.begin];
    const int64_t id = s_.query_id[q];
    if (bound < 0) {
      s_.counts[id] = s_.k;
      return;
    }
    int64_t n = 0;
    for (const auto& pair : ties_.find(query(q), group.cloud, bound)) {
      if ((!s_.loop && pair.second == id) || n == s_.k) continue;
      if (!s_.counts) {
        s_.out_query[s_.offset[id] + n] = id;
        s_.out_neighbor[s_.offset[id] + n] = pair.second;
      }
      ++n;
    }
    if (s_.counts) s_.counts[id] = n;
  }

  const Search& s_;
  const Forest<T>& f_;
  Metric<T, D, Periodic> metric_;
  Candidates<T> near_;
  bool tied_ = false;  // whether many seeds are as far as the k-th
  std::vector<T> box_, bound_, corners_;
  std::vector<int64_t> blocks_, reach_;
  std::vector<Node> stack_;
  std::vector<Group> todo_;
  TieSearch<T, D, Periodic> ties_;
};

}  // namespace neighbors
}  // namespace tge
