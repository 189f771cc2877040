// One query's search where many points tie for the last place.
//
// Ties go to the smaller id. Nodes are visited in the order of (least
// distance, smallest id), and left out once neither can win: of a thousand
// points in one place only the leaves of the first few are read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "neighbors_forest.h"
#include "neighbors_metric.h"

namespace tge {
namespace neighbors {

template <class T, int D, bool Periodic>
class TieSearch {
 public:
  using Pair = std::pair<T, Id<T>>;  // (distance, id)

  TieSearch(const Search& s, const Forest<T>& f,
            const Metric<T, D, Periodic>& metric)
      : s_(s), f_(f), metric_(metric) {}

  // The nearest points of a cloud within `bound`, in order: k, and one more
  // where the query itself is among the points and does not count. `bound`
  // is the radius, or holds as many points.
  const std::vector<Pair>& find(const T* x, int64_t cloud, T bound) {
    const int64_t dim = metric_.dim();
    if (cloud == cloud_ && std::equal(x, x + dim, x_.begin())) return found_;
    x_.assign(x, x + dim);
    cloud_ = cloud;
    bound_ = bound;
    found_.clear();
    todo_.clear();
    push(s_.root(cloud));
    while (!todo_.empty() && wanted(todo_.front().key)) {
      const Node node = todo_.front().node;
      std::pop_heap(todo_.begin(), todo_.end());
      todo_.pop_back();
      visit(node);
    }
    std::sort_heap(found_.begin(), found_.end());
    return found_;
  }

 private:
  struct Entry {
    Pair key;
    Node node;
    bool operator<(const Entry& other) const { return key > other.key; }
  };

  bool full() const {
    return static_cast<int64_t>(found_.size()) >= s_.k + !s_.loop;
  }

  bool wanted(const Pair& key) const {
    return full() ? key < found_.front() : key.first <= bound_;
  }

  void push(const Node& node) {
    const T gap = metric_.nearest(x_.data(), x_.data(), f_.box(node));
    const Pair key{gap, f_.least[node.index]};
    if (!wanted(key)) return;
    todo_.push_back({key, node});
    std::push_heap(todo_.begin(), todo_.end());
  }

  void visit(const Node& node) {
    if (node.b - node.a > 1) {
      push(node.left());
      push(node.right());
      return;
    }
    for (int64_t b = f_.first[node.a]; b < f_.first[node.b]; ++b) {
      T d[kLanes];
      metric_.distances(f_.block(b), x_.data(), d);
      for_each_within(d, bound_,
                      [&](int j) { offer({d[j], f_.id[b * kLanes + j]}); });
    }
  }

  void offer(const Pair& pair) {
    if (!wanted(pair)) return;
    if (full()) {
      std::pop_heap(found_.begin(), found_.end());
      found_.pop_back();
    }
    found_.push_back(pair);
    std::push_heap(found_.begin(), found_.end());
  }

  const Search& s_;
  const Forest<T>& f_;
  const Metric<T, D, Periodic>& metric_;
  T bound_ = 0;
  int64_t cloud_ = -1;
  std::vector<T> x_;
  std::vector<Pair> found_;  // the farthest first, until all are found
  std::vector<Entry> todo_;  // the nearest first
};

}  // namespace neighbors
}  // namespace tge
