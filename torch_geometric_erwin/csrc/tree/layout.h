// Which point of a cloud lies in which slot, at every level: a matter of
// counts alone.
//
// The levels of one tree are nested. A node that holds several balls of some
// level is split so that either side gets as many whole balls as the other,
// or one less; below the smallest balls it is split in halves. A ball's slots
// are halved along with it. A point of level l + 1 is what lies in `stride`
// neighbouring slots of level l.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace tge {

constexpr int kMaxLevels = 16;

// How a node is counted: the balls it holds at each level of the tree.
struct Counts {
  int32_t balls[kMaxLevels];
};

// The number of points that go left; updates `left` and `right`.
inline int64_t divide(int64_t n, const Counts& node, int num_levels,
                      Counts& left, Counts& right) {
  int level = num_levels - 1;
  while (level >= 0 && node.balls[level] < 2) --level;
  if (level < 0) return n / 2;
  left = right = node;
  int64_t whole = node.balls[level], part = whole / 2;
  left.balls[level] = static_cast<int32_t>(part);
  right.balls[level] = static_cast<int32_t>(whole - part);
  while (--level >= 0) {
    const int64_t below = node.balls[level] * part / whole;
    whole = node.balls[level];
    part = below;
    left.balls[level] = static_cast<int32_t>(part);
    right.balls[level] = static_cast<int32_t>(whole - part);
  }
  return n * part / whole;
}

struct Level {
  int64_t ball_size, stride;  // `stride` to the next level; 0 at the last
  // One entry per point of the cloud at this level: its slot in the cloud.
  int32_t* slot;
  // One entry per ball of the cloud: its first point.
  int32_t* first;
};

// Fills `slot` and `first` of every level for one cloud of n points.
class Layout {
 public:
  Layout(const Level* levels, int num_levels)
      : levels_(levels), num_levels_(num_levels) {}

  void run(int64_t n, const Counts& counts) {
    if (n == 0) return;
    State state{};
    node(n, counts, state);
  }

 private:
  struct State {
    int32_t start[kMaxLevels];
    int32_t width[kMaxLevels];  // 0: not in a ball of this level yet
    bool placed[kMaxLevels];    // this node lies in one point of this level
  };

  // What a smallest ball adds to each level, to be repeated for its likes.
  struct Pattern {
    int64_t n;
    State key;
    std::vector<int32_t> offsets[kMaxLevels];
  };

  void node(int64_t n, const Counts& counts, State state) {
    for (int l = 0; l < num_levels_; ++l)
      if (counts.balls[l] == 1 && state.width[l] == 0) enter(l, state);
    if (counts.balls[0] == 1) return ball(n, state);
    place(n, state);
    Counts left, right;
    const int64_t num_left = divide(n, counts, num_levels_, left, right);
    const State half = halve(state);
    node(num_left, left, state_left(state));
    node(n - num_left, right, half);
  }

  void enter(int l, State& state) {
    state.start[l] =
        static_cast<int32_t>(num_balls_[l] * levels_[l].ball_size);
    state.width[l] = static_cast<int32_t>(levels_[l].ball_size);
    levels_[l].first[num_balls_[l]++] = num_points_[l];
  }

  void place(int64_t n, State& state) {
    for (int l = 0; l < num_levels_; ++l) {
      if (state.placed[l]) continue;
      const bool one =
          l == 0 ? n == 1
                 : state.placed[l - 1] ||
                       (state.width[l - 1] > 0 &&
                        state.width[l - 1] <= levels_[l - 1].stride);
      if (!one) continue;
      state.placed[l] = true;
      levels_[l].slot[num_points_[l]++] = state.start[l];
    }
  }

  State state_left(State state) const {
    for (int l = 0; l < num_levels_; ++l)
      if (!state.placed[l]) state.width[l] /= 2;
    return state;
  }

  State halve(State state) const {
    for (int l = 0; l < num_levels_; ++l)
      if (!state.placed[l] && state.width[l]) {
        state.width[l] /= 2;
        state.start[l] += state.width[l];
      }
    return state;
  }

  void points(int64_t n, State state) {
    place(n, state);
    if (n == 1) return;
    points(n / 2, state_left(state));
    points(n - n / 2, halve(state));
  }

  void ball(int64_t n, const State& state) {
    const Pattern* pattern = find(n, state);
    if (pattern == nullptr) return record(n, state);
    for (int l = 0; l < num_levels_; ++l) {
      int32_t* slot = levels_[l].slot + num_points_[l];
      const auto& offsets = pattern->offsets[l];
      const int32_t start = state.start[l];
      for (size_t i = 0; i < offsets.size(); ++i) slot[i] = start + offsets[i];
      num_points_[l] += static_cast<int32_t>(offsets.size());
    }
  }

  const Pattern* find(int64_t n, const State& state) const {
    for (const auto& pattern : patterns_)
      if (pattern.n == n && alike(pattern.key, state)) return &pattern;
    return nullptr;
  }

  bool alike(const State& a, const State& b) const {
    for (int l = 0; l < num_levels_; ++l)
      if (a.placed[l] != b.placed[l] || a.width[l] != b.width[l])
        return false;
    return true;
  }

  void record(int64_t n, const State& state) {
    int32_t before[kMaxLevels];
    std::copy(num_points_, num_points_ + num_levels_, before);
    points(n, state);
    if (patterns_.size() >= 16) return;
    Pattern pattern{n, state, {}};
    for (int l = 0; l < num_levels_; ++l)
      for (int32_t i = before[l]; i < num_points_[l]; ++i)
        pattern.offsets[l].push_back(levels_[l].slot[i] - state.start[l]);
    patterns_.push_back(std::move(pattern));
  }

  const Level* levels_;
  int num_levels_;
  int32_t num_balls_[kMaxLevels] = {};
  int32_t num_points_[kMaxLevels] = {};
  std::vector<Pattern> patterns_;
};

}  // namespace tge
