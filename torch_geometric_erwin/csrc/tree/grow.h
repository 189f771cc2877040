// Grows the trees of several clouds at once, with all threads.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "tree/layout.h"
#include "common/parallel.h"
#include "tree/principal.h"
#include "tree/split.h"
#include "tree/tiny.h"

namespace tge {

constexpr int64_t kGrain = 16384;  // points a thread takes at a time, at least

// A node of the tree: its points lie in one of two buffers, from `begin` on,
// and what it holds is known to a plan.
template <class State>
struct Node {
  int64_t begin, n;
  int buffer;
  State state;
};

// A plan says how many points of a node go left (none: it stays whole), and
// what to do with a whole node. This one goes down to single points, as the
// balls of the levels are nested.
struct Whole {
  using State = Counts;
  int num_levels;
  int64_t width;  // of a ball
  int64_t group;  // slots that become one point of the next level, or a ball
  int32_t* order;

  int64_t divide(int64_t n, const State& node, State& left,
                 State& right) const {
    if (node.balls[0] < 2) return 0;
    return tge::divide(n, node, num_levels, left, right);
  }

  template <class S>
  void finish(const S& space, typename S::Point* from, typename S::Point* to,
              int64_t n, int64_t begin, Scratch<typename S::Scalar>& scratch,
              const Plane* plane) const {
    if (plane)
      sort_groups(space, from, to, n, begin, scratch, *plane, width);
    else
      finish(space, from, to, n, begin, scratch);
  }

 private:
  template <class S>
  void finish(const S& space, typename S::Point* from, typename S::Point* to,
              int64_t n, int64_t begin,
              Scratch<typename S::Scalar>& scratch) const {
    if (n == 1) {
      order[begin] = from[0].id;
      return;
    }
    if constexpr (S::kAxes > 0)
      if (n <= Tiny<S>::kMost)
        return Tiny<S>().run(space, from, static_cast<int>(n), order + begin);
    split(space, from, to, n, n / 2, scratch);
    finish(space, to, from, n / 2, begin, scratch);
    finish(space, to + n / 2, from + n / 2, n - n / 2, begin + n / 2, scratch);
  }

  // Goes down to groups, whose points are sorted.
  template <class S>
  void sort_groups(const S& space, typename S::Point* from,
                   typename S::Point* to, int64_t n, int64_t begin,
                   Scratch<typename S::Scalar>& scratch, const Plane& plane,
                   int64_t slots) const {
    if (n == 1) {
      order[begin] = from[0].id;
      return;
    }
    PrincipalSplit<S> axis(space, plane, scratch);
    if (slots <= group) return axis.sort(from, n, order + begin);
    const int64_t left = n / 2;
    axis.split(from, to, n, left, axis.alone);
    sort_groups(space, to, from, left, begin, scratch, plane, slots / 2);
    sort_groups(space, to + left, from + left, n - left, begin + left,
                scratch, plane, slots / 2);
  }
};

// Goes down to the balls of one level; within a ball the order stays.
struct Balls {
  struct State {
    int64_t first, last;
  };
  const int32_t* first;  // point of each ball, counted within its cloud
  int32_t* order;

  int64_t divide(int64_t, const State& node, State& left,
                 State& right) const {
    if (node.last - node.first < 2) return 0;
    const int64_t middle = node.first + (node.last - node.first) / 2;
    left = {node.first, middle};
    right = {middle, node.last};
    return first[middle] - first[node.first];
  }

  template <class S>
  void finish(const S&, const typename S::Point* from, typename S::Point*,
              int64_t n, int64_t begin, Scratch<typename S::Scalar>&,
              const Plane*) const {
    for (int64_t i = 0; i < n; ++i) order[begin + i] = from[i].id;
  }
};

template <class S>
class Grower {
 public:
  using T = typename S::Scalar;
  using P = typename S::Point;

  Grower(int dim, Team& team) : dim_(dim), team_(team), scratch_(team.size()) {
    for (auto& scratch : scratch_) scratch.reserve(dim);
  }

  void reserve(int64_t n) {
    for (auto& buffer : buffers_) buffer.reset(new P[n]);
  }

  P* points() { return buffers_[0].get(); }

  // Splits nodes until each is small enough for one thread, then hands them
  // out: at their widest axes, or along their principal ones, turned in a
  // plane.
  template <class Plan>
  void run(std::vector<Node<typename Plan::State>> nodes, const S& space,
           const Plan& plan, const Plane* plane = nullptr) {
    using N = Node<typename Plan::State>;
    plane_ = plane;
    int64_t n = 0;
    for (const N& node : nodes) n += node.n;
    const int64_t most =
        team_.size() == 1 ? n : std::max(kGrain, n / (8 * team_.size()));
    std::vector<N> small, large;
    const auto sort_out = [&](const std::vector<N>& found) {
      large.clear();
      for (const N& node : found)
        if (node.n > 0) (node.n > most ? large : small).push_back(node);
    };
    sort_out(nodes);
    while (!large.empty()) {
      std::vector<N> children(2 * large.size());
      const bool alone = static_cast<int>(large.size()) >= team_.size();
      const auto one = [&](int64_t i, int thread) {
        step(large[i], space, plan, &children[2 * i], scratch_[thread],
             !alone);
      };
      if (alone)
        team_.for_each(static_cast<int64_t>(large.size()), one);
      else
        for (size_t i = 0; i < large.size(); ++i) one(i, 0);
      sort_out(children);
    }
    std::sort(small.begin(), small.end(),
              [](const N& a, const N& b) { return a.n > b.n; });
    team_.for_each(static_cast<int64_t>(small.size()), [&](int64_t i, int t) {
      descend(small[i], space, plan, scratch_[t]);
    });
  }

 private:
  template <class N>
  P* from(const N& node) {
    return buffers_[node.buffer].get() + node.begin;
  }

  template <class N>
  P* to(const N& node) {
    return buffers_[1 - node.buffer].get() + node.begin;
  }

  template <class N, class Plan>
  bool divide(const N& node, const Plan& plan, N* children) const {
    children[0] = children[1] = node;
    const int64_t left =
        plan.divide(node.n, node.state, children[0].state, children[1].state);
    if (left == 0) return false;
    children[0].n = left;
    children[1].begin += left;
    children[1].n -= left;
    children[0].buffer = children[1].buffer = 1 - node.buffer;
    return true;
  }

  // Splits one node, with this thread or all of them.
  template <class N, class Plan>
  void step(const N& node, const S& space, const Plan& plan, N* children,
            Scratch<T>& scratch, bool together) {
    if (!divide(node, plan, children)) {
      plan.finish(space, from(node), to(node), node.n, node.begin, scratch,
                  plane_);
      children[0].n = children[1].n = 0;
    } else if (together && !plane_) {
      split_together(space, from(node), to(node), node.n, children[0].n);
    } else {
      cut(space, node, children[0].n, scratch, together);
    }
  }

  template <class N, class Plan>
  void descend(const N& node, const S& space, const Plan& plan,
               Scratch<T>& scratch) {
    N children[2];
    if (!divide(node, plan, children))
      return plan.finish(space, from(node), to(node), node.n, node.begin,
                         scratch, plane_);
    cut(space, node, children[0].n, scratch, false);
    descend(children[0], space, plan, scratch);
    descend(children[1], space, plan, scratch);
  }

  template <class N>
  void cut(const S& space, const N& node, int64_t num_left,
           Scratch<T>& scratch, bool together) {
    if (!plane_)
      return tge::split(space, from(node), to(node), node.n, num_left,
                        scratch);
    PrincipalSplit<S> axis(space, *plane_, scratch);
    if (together)
      axis.split(from(node), to(node), node.n, num_left,
                 [&](int64_t n, auto&& fn) {
                   team_.for_each(n, [&](int64_t i, int) { fn(i); });
                 });
    else
      axis.split(from(node), to(node), node.n, num_left, axis.alone);
  }

  // As `split`, each thread taking an even part of the points.
  void split_together(const S& space, const P* from, P* to, int64_t n,
                      int64_t num_left) {
    const int axis = widest_together(space, from, n);
    const T low = low_[axis], high = high_[axis];
    if (!(high > low)) {
      std::copy(from, from + n, to);
      return;
    }
    Scratch<T>& scratch = scratch_[0];
    const auto room = scratch.room(to, n);
    T* keys = room.first;
    team_.chunks(n, 0, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) keys[i] = space.at(from[i], axis);
    });
    const auto [key, below] = select(keys, room.second, scratch.candidates, n,
                                     num_left, low, high);
    const Cut<T> cut{axis, key, num_left - below};
    if (cut.ties) settle_ties(space, from, n, cut, scratch);
    move_together(space, from, to, n, num_left, cut);
  }

  int widest_together(const S& space, const P* from, int64_t n) {
    low_.resize(team_.size() * dim_);
    high_.resize(team_.size() * dim_);
    team_.chunks(n, 0, [&](int64_t begin, int64_t end, int i) {
      bounds(space, from + begin, end - begin, &low_[i * dim_],
             &high_[i * dim_]);
    });
    for (int i = 1; i < team_.size(); ++i)
      for (int a = 0; a < dim_; ++a) {
        low_[a] = std::min(low_[a], low_[i * dim_ + a]);
        high_[a] = std::max(high_[a], high_[i * dim_ + a]);
      }
    return widest(low_.data(), high_.data(), dim_);
  }

  void move_together(const S& space, const P* from, P* to, int64_t n,
                     int64_t num_left, const Cut<T>& cut) {
    const uint8_t* goes_left = scratch_[0].goes_left.data();
    std::vector<int64_t> lefts(team_.size() + 1, 0);
    team_.chunks(n, 0, [&](int64_t begin, int64_t end, int i) {
      int64_t count = 0;
      for (int64_t j = begin; j < end; ++j) {
        const T x = space.at(from[j], cut.axis);
        count += x < cut.key || (cut.ties && x == cut.key && goes_left[j]);
      }
      lefts[i + 1] = count;
    });
    for (int i = 0; i < team_.size(); ++i) lefts[i + 1] += lefts[i];
    team_.chunks(n, 0, [&](int64_t begin, int64_t end, int i) {
      move(space, from, begin, end, cut, goes_left, to + lefts[i],
           to + num_left + (begin - lefts[i]));
    });
  }

  const int dim_;
  Team& team_;
  const Plane* plane_ = nullptr;
  std::vector<Scratch<T>> scratch_;
  std::vector<T> low_, high_;
  std::unique_ptr<P[]> buffers_[2];
};

}  // namespace tge
