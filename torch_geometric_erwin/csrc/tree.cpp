// Builds the levels and orientations of a ball tree (Zhdanov et al., 2025,
// Algorithm 1) for a batch of point clouds.
#include <cstring>
#include <memory>

#include "export.h"
#include "layout.h"
#include "parallel.h"
#include "split.h"
#include "tiny.h"

namespace tge {
namespace {

constexpr int64_t kSerial = 8192;  // fewer points do not pay for a thread
constexpr int64_t kGrain = 16384;  // points a thread takes at a time, at least

// An orientation turns the cloud by one angle in the planes of neighbouring
// axes, one after the other; a periodic cloud is shifted in its cell first.
struct Orientation {
  double cosine, sine;
  double shift;  // of the cell's edges
  double slide;  // in one dimension: of a ball
};

}  // namespace
}  // namespace tge

extern "C" struct TgeTree {
  int32_t scalar_size, dim, num_levels, num_orientations, num_threads;
  int64_t num_clouds;
  const void* pos;       // [points, dim], clouds one after the other
  const void* mass;      // [points] or null: one each
  const void* box;       // [clouds, dim] or null
  const int64_t* ptr;    // [clouds + 1]
  const int64_t* points;      // [levels, clouds]
  const int64_t* balls;       // [levels, clouds]
  const int64_t* ball_sizes;  // [levels]
  const int64_t* strides;     // [levels - 1]
  const tge::Orientation* orientations;
  int64_t* const* index;    // [levels * orientations] of [slots]
  int64_t* const* inverse;  // [levels * orientations] of [points]
  uint8_t* const* mask;     // [levels] of [slots]
};

namespace tge {
namespace {

template <class T, class P>
class TreeBuilder {
 public:
  using S = Space<T, P>;

  explicit TreeBuilder(const TgeTree& args)
      : a_(args),
        dim_(args.dim),
        team_(threads(args)),
        scratch_(team_.size()) {
    offsets();
  }

  // False where a coordinate is not finite, or no longer when turned.
  bool run() {
    if (total(0) == 0) return true;
    layout();
    if (!first_orientation()) return false;
    for (int l = 0; l < a_.num_levels; ++l) {
      if (l > 0) coarsen(l);
      for (int o = 1; o < a_.num_orientations; ++o)
        if (!orientation(l, o)) return false;
    }
    return true;
  }

 private:
  static int threads(const TgeTree& a) {
    const int64_t n = a.ptr[a.num_clouds];
    const int64_t useful = n / kSerial > 1 ? n / kSerial : 1;
    return static_cast<int>(std::min<int64_t>(a.num_threads, useful));
  }

  int64_t total(int l) const { return point_ptr_[l].back(); }

  void offsets() {
    const int64_t b = a_.num_clouds;
    for (int l = 0; l < a_.num_levels; ++l) {
      point_ptr_.emplace_back(b + 1);
      ball_ptr_.emplace_back(b + 1);
      for (int64_t c = 0; c < b; ++c) {
        point_ptr_[l][c + 1] = point_ptr_[l][c] + a_.points[l * b + c];
        ball_ptr_[l][c + 1] = ball_ptr_[l][c] + a_.balls[l * b + c];
      }
      slot_.emplace_back(new int32_t[point_ptr_[l][b]]);
      first_.emplace_back(new int32_t[ball_ptr_[l][b]]);
    }
  }

  void layout() {
    team_.for_each(a_.num_clouds, [&](int64_t c, int) {
      Level levels[kMaxLevels];
      Counts counts{};
      for (int l = 0; l < a_.num_levels; ++l) {
        levels[l].ball_size = a_.ball_sizes[l];
        levels[l].stride = l + 1 < a_.num_levels ? a_.strides[l] : 0;
        levels[l].slot = slot_[l].get() + point_ptr_[l][c];
        levels[l].first = first_[l].get() + ball_ptr_[l][c];
        counts.balls[l] =
            static_cast<int32_t>(a_.balls[l * a_.num_clouds + c]);
      }
      Layout(levels, a_.num_levels).run(a_.ptr[c + 1] - a_.ptr[c], counts);
    });
  }

  // ---- points of a level, turned to an orientation ----------------------

  void turn(const T* from, int o, int64_t cloud, T* x) const {
    const Orientation& way = a_.orientations[o];
    for (int a = 0; a < dim_; ++a) x[a] = from[a];
    if (a_.box != nullptr && way.shift != 0.0) {
      const T* box = static_cast<const T*>(a_.box) + cloud * dim_;
      for (int a = 0; a < dim_; ++a) {
        x[a] += static_cast<T>(way.shift) * box[a];
        if (x[a] >= box[a]) x[a] -= box[a];
      }
    }
    if (way.sine == 0.0) return;
    const T c = static_cast<T>(way.cosine), s = static_cast<T>(way.sine);
    for (int a = 0; a + 1 < dim_; ++a) {
      const T u = x[a], v = x[a + 1];
      x[a] = c * u - s * v;
      x[a + 1] = s * u + c * v;
    }
  }

  // Returns false where a coordinate is not finite.
  bool load(const T* coords, int l, int o, P* points, T* turned) {
    std::atomic<bool> finite{true};
    team_.chunks(total(l), kGrain, [&](int64_t begin, int64_t end, int) {
      int64_t cloud = std::upper_bound(point_ptr_[l].begin(),
                                       point_ptr_[l].end(), begin) -
                      point_ptr_[l].begin() - 1;
      std::vector<T> own(dim_);
      T check = 0;
      for (int64_t i = begin; i < end; ++i) {
        while (i >= point_ptr_[l][cloud + 1]) ++cloud;
        T* x = turned ? turned + i * dim_ : own.data();
        turn(coords + i * dim_, o, cloud, x);
        for (int a = 0; a < dim_; ++a) check += x[a] * 0;
        if constexpr (!std::is_same_v<P, Indexed>)
          for (int a = 0; a < S::dim(); ++a) points[i].x[a] = x[a];
        points[i].id = static_cast<int32_t>(i);
      }
      if (!(check == 0)) finite = false;
    });
    return finite;
  }

  // ---- splitting -------------------------------------------------------

  // A node of the tree: its points lie in `buffer` from `begin` on.
  template <class State>
  struct Node {
    int64_t begin, n;
    int buffer;
    State state;
  };

  // Splits nodes until each is small enough for one thread, then hands them
  // out. `Plan` says how a node divides and what to do with an undivided one.
  template <class Plan>
  void grow(std::vector<Node<typename Plan::State>> nodes, const S& space,
            P* const buffers[2], const Plan& plan) {
    using N = Node<typename Plan::State>;
    int64_t n = 0;
    for (const N& node : nodes) n += node.n;
    const int64_t most =
        team_.size() == 1 ? n : std::max(kGrain, n / (8 * team_.size()));
    std::vector<N> small, large;
    for (N& node : nodes) (node.n > most ? large : small).push_back(node);
    while (!large.empty()) {
      std::vector<N> children(2 * large.size());
      const auto one = [&](int64_t i, int thread) {
        step(large[i], space, buffers, plan, &children[2 * i], thread);
      };
      if (static_cast<int>(large.size()) >= team_.size()) {
        team_.for_each(static_cast<int64_t>(large.size()), one);
      } else {
        for (size_t i = 0; i < large.size(); ++i)
          step_together(large[i], space, buffers, plan, &children[2 * i]);
      }
      large.clear();
      for (N& node : children)
        if (node.n > 0) (node.n > most ? large : small).push_back(node);
    }
    std::sort(small.begin(), small.end(),
              [](const N& a, const N& b) { return a.n > b.n; });
    team_.for_each(static_cast<int64_t>(small.size()), [&](int64_t i, int t) {
      scratch_[t].reserve(small[i].n, dim_);
      descend(small[i], space, buffers, plan, scratch_[t]);
    });
  }

  template <class N, class Plan>
  bool divide_node(const N& node, const Plan& plan, N* children) {
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

  template <class N, class Plan>
  void step(const N& node, const S& space, P* const buffers[2],
            const Plan& plan, N* children, int thread) {
    scratch_[thread].reserve(node.n, dim_);
    if (divide_node(node, plan, children)) {
      split(space, buffers[node.buffer] + node.begin,
            buffers[1 - node.buffer] + node.begin, node.n, children[0].n,
            scratch_[thread]);
      return;
    }
    plan.finish(space, buffers[node.buffer] + node.begin,
                buffers[1 - node.buffer] + node.begin, node.n, node.begin,
                scratch_[thread]);
    children[0].n = children[1].n = 0;
  }

  // As `step`, all threads on one node.
  template <class N, class Plan>
  void step_together(const N& node, const S& space, P* const buffers[2],
                     const Plan& plan, N* children) {
    if (!divide_node(node, plan, children)) {
      scratch_[0].reserve(node.n, dim_);
      plan.finish(space, buffers[node.buffer] + node.begin,
                  buffers[1 - node.buffer] + node.begin, node.n, node.begin,
                  scratch_[0]);
      children[0].n = children[1].n = 0;
      return;
    }
    split_together(space, buffers[node.buffer] + node.begin,
                   buffers[1 - node.buffer] + node.begin, node.n,
                   children[0].n);
  }

  void split_together(const S& space, const P* from, P* to, int64_t n,
                      int64_t num_left) {
    const int parts = team_.size();
    Scratch<T>& scratch = scratch_[0];
    scratch.reserve(n, dim_);
    std::vector<T> low(parts * dim_), high(parts * dim_);
    std::vector<int64_t> begins(parts + 1, n), lefts(parts + 1, 0);
    team_.chunks(n, 0, [&](int64_t begin, int64_t end, int i) {
      begins[i] = begin;
      bounds(space, from + begin, end - begin, &low[i * dim_],
             &high[i * dim_]);
    });
    for (int i = 1; i < parts; ++i)
      for (int a = 0; a < dim_; ++a) {
        low[a] = std::min(low[a], low[i * dim_ + a]);
        high[a] = std::max(high[a], high[i * dim_ + a]);
      }
    const int axis = widest(low.data(), high.data(), dim_);
    if (!(high[axis] > low[axis])) {
      std::copy(from, from + n, to);
      return;
    }
    T* keys = scratch.keys.data();
    team_.chunks(n, 0, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) keys[i] = space.at(from[i], axis);
    });
    const auto [key, below] = select(keys, scratch.candidates.data(), n,
                                     num_left, low[axis], high[axis]);
    const Cut<T> cut{axis, key, num_left - below};
    if (cut.ties) settle_ties(space, from, n, cut, scratch);
    const uint8_t* goes_left = scratch.goes_left.data();
    team_.chunks(n, 0, [&](int64_t begin, int64_t end, int i) {
      int64_t count = 0;
      for (int64_t j = begin; j < end; ++j) {
        const T x = space.at(from[j], axis);
        count += x < cut.key || (cut.ties && x == cut.key && goes_left[j]);
      }
      lefts[i + 1] = count;
    });
    for (int i = 0; i < parts; ++i) lefts[i + 1] += lefts[i];
    team_.chunks(n, 0, [&](int64_t begin, int64_t end, int i) {
      move(space, from, begin, end, cut, goes_left, to + lefts[i],
           to + num_left + (begin - lefts[i]));
    });
  }

  template <class N, class Plan>
  void descend(const N& node, const S& space, P* const buffers[2],
               const Plan& plan, Scratch<T>& scratch) {
    N children[2];
    P* from = buffers[node.buffer] + node.begin;
    P* to = buffers[1 - node.buffer] + node.begin;
    if (!divide_node(node, plan, children))
      return plan.finish(space, from, to, node.n, node.begin, scratch);
    split(space, from, to, node.n, children[0].n, scratch);
    descend(children[0], space, buffers, plan, scratch);
    descend(children[1], space, buffers, plan, scratch);
  }

  // Down to single points, as the levels' balls are nested.
  struct Whole {
    using State = Counts;
    int num_levels;
    int32_t* order;

    int64_t divide(int64_t n, const State& node, State& left,
                   State& right) const {
      if (node.balls[0] < 2) return 0;
      return tge::divide(n, node, num_levels, left, right);
    }

    void finish(const S& space, P* from, P* to, int64_t n, int64_t begin,
                Scratch<T>& scratch) const {
      if (n == 1) {
        order[begin] = from[0].id;
        return;
      }
      if constexpr (S::kAxes > 0)
        if (n <= Tiny<S>::kMost)
          return Tiny<S>().run(space, from, static_cast<int>(n),
                               order + begin);
      split(space, from, to, n, n / 2, scratch);
      finish(space, to, from, n / 2, begin, scratch);
      finish(space, to + n / 2, from + n / 2, n - n / 2, begin + n / 2,
             scratch);
    }
  };

  // Down to the balls of one level; within a ball the order stays.
  struct Balls {
    struct State {
      int64_t first, last;
    };
    const int32_t* first;  // of this level, with points counted from `base`
    int32_t* order;

    int64_t divide(int64_t, const State& node, State& left,
                   State& right) const {
      if (node.last - node.first < 2) return 0;
      const int64_t middle = node.first + (node.last - node.first) / 2;
      left = {node.first, middle};
      right = {middle, node.last};
      return first[middle] - first[node.first];
    }

    void finish(const S&, const P* from, P*, int64_t n, int64_t begin,
                Scratch<T>&) const {
      for (int64_t i = 0; i < n; ++i) order[begin + i] = from[i].id;
    }
  };

  // ---- the orientations --------------------------------------------------

  bool first_orientation() {
    const int64_t n = total(0);
    points_[0].reset(new P[n]);
    points_[1].reset(new P[n]);
    order_.reset(new int32_t[n]);
    if (std::is_same_v<P, Indexed>)
      turned_.reset(new T[n * dim_]);
    const T* pos = static_cast<const T*>(a_.pos);
    if (!load(pos, 0, 0, points_[0].get(), turned_.get())) return false;
    std::vector<Node<Counts>> roots;
    for (int64_t c = 0; c < a_.num_clouds; ++c) {
      Node<Counts> root{a_.ptr[c], a_.ptr[c + 1] - a_.ptr[c], 0, {}};
      for (int l = 0; l < a_.num_levels; ++l)
        root.state.balls[l] =
            static_cast<int32_t>(a_.balls[l * a_.num_clouds + c]);
      if (root.n > 0) roots.push_back(root);
    }
    P* const buffers[2] = {points_[0].get(), points_[1].get()};
    grow(std::move(roots), S(dim_, turned_.get()), buffers,
         Whole{a_.num_levels, order_.get()});
    emit(0, 0, order_.get(), nullptr);
    if (a_.num_levels * a_.num_orientations > 1) gather();
    return true;
  }

  // The points in the order of the tree, where all that follows reads them.
  void gather() {
    coords_.reset(new T[total(0) * dim_]);
    const T* pos = static_cast<const T*>(a_.pos);
    team_.chunks(total(0), kGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        for (int a = 0; a < dim_; ++a)
          coords_[i * dim_ + a] =
              pos[static_cast<int64_t>(order_[i]) * dim_ + a];
    });
  }

  bool orientation(int l, int o) {
    const int64_t n = total(l);
    if (turn_order_ == nullptr) turn_order_.reset(new int32_t[n]);
    if (dim_ == 1) {
      slide(l, o);
    } else {
      if (!load(coords_.get(), l, o, points_[0].get(), turned_.get()))
        return false;
      std::vector<Node<typename Balls::State>> roots;
      for (int64_t c = 0; c < a_.num_clouds; ++c) {
        const int64_t begin = point_ptr_[l][c];
        if (point_ptr_[l][c + 1] > begin)
          roots.push_back({begin, point_ptr_[l][c + 1] - begin, 0,
                           {ball_ptr_[l][c], ball_ptr_[l][c + 1]}});
      }
      P* const buffers[2] = {points_[0].get(), points_[1].get()};
      grow(std::move(roots), S(dim_, turned_.get()), buffers,
           Balls{first_[l].get(), turn_order_.get()});
    }
    emit(l, o, turn_order_.get(), l == 0 ? order_.get() : nullptr);
    return true;
  }

  // A line cannot be turned: the balls move along it by part of a ball.
  void slide(int l, int o) {
    team_.for_each(a_.num_clouds, [&](int64_t c, int) {
      const int64_t begin = point_ptr_[l][c];
      const int64_t n = point_ptr_[l][c + 1] - begin;
      const int64_t balls = ball_ptr_[l][c + 1] - ball_ptr_[l][c];
      if (n == 0) return;
      const int64_t ball = balls > 1 ? first_[l][ball_ptr_[l][c] + 1] : n;
      const auto by = static_cast<int64_t>(a_.orientations[o].slide *
                                           static_cast<double>(ball));
      for (int64_t i = 0; i < n; ++i)
        turn_order_[begin + i] = static_cast<int32_t>(begin + (i + by) % n);
    });
  }

  // The mass of a point at the level last gathered or coarsened.
  T mass(int64_t i) const {
    if (mass_) return mass_[i];
    return a_.mass ? static_cast<const T*>(a_.mass)[order_[i]] : T(1);
  }

  // Sums rows of `width` in halves, as torch can do it, too.
  static T sum_halves(T* rows, int64_t n, int64_t width) {
    for (int64_t h = n / 2; h >= 1; h /= 2)
      for (int64_t j = 0; j < h * width; ++j) rows[j] += rows[j + h * width];
    return rows[0];
  }

  // The next level's points: centres of mass of `stride` neighbouring slots.
  void coarsen(int l) {
    const int64_t stride = a_.strides[l - 1];
    std::unique_ptr<T[]> coords(new T[total(l) * dim_]);
    std::unique_ptr<T[]> masses(new T[total(l)]);
    const int64_t parts = a_.num_clouds == 1 ? 4 * team_.size() : 1;
    team_.for_each(a_.num_clouds * parts, [&](int64_t task, int) {
      const int64_t c = task / parts, part = task % parts;
      const int64_t base = point_ptr_[l - 1][c];
      const int64_t n = point_ptr_[l - 1][c + 1] - base;
      const int64_t balls = ball_ptr_[l - 1][c + 1] - ball_ptr_[l - 1][c];
      if (n == 0 || (balls == 1 && part > 0)) return;
      const int32_t* first = first_[l - 1].get() + ball_ptr_[l - 1][c];
      const int64_t to_ball = balls == 1 ? 1 : balls * (part + 1) / parts;
      int64_t i = first[balls == 1 ? 0 : balls * part / parts];
      const int64_t end = to_ball == balls ? n : first[to_ball];
      const int32_t* slot = slot_[l - 1].get() + base;
      // With several balls no group of slots is empty, so a group's number
      // is its point's; a single ball is gone through from its start.
      int64_t to = point_ptr_[l][c] + (i < end ? slot[i] / stride : 0);
      std::vector<T> shares(stride), sums(stride * dim_);
      while (i < end) {
        const int64_t group = slot[i] / stride;
        int64_t last = i;
        std::fill(shares.begin(), shares.end(), T(0));
        for (; last < end && slot[last] / stride == group; ++last)
          shares[slot[last] % stride] = mass(base + last);
        const T total = sum_halves(shares.data(), stride, 1);
        std::fill(sums.begin(), sums.end(), T(0));
        for (; i < last; ++i) {
          const T share = mass(base + i) / total;  // no sum can overflow
          for (int a = 0; a < dim_; ++a)
            sums[(slot[i] % stride) * dim_ + a] =
                coords_[(base + i) * dim_ + a] * share;
        }
        sum_halves(sums.data(), stride, dim_);
        std::copy_n(sums.data(), dim_, &coords[to * dim_]);
        masses[to++] = total;
      }
    });
    coords_ = std::move(coords);
    mass_ = std::move(masses);
    emit(l, 0, nullptr, nullptr);  // numbered in the order of the tree
  }

  // ---- output --------------------------------------------------------------

  // Writes one orientation of one level. `order` maps places in the tree to
  // points (null: the same), through `outer` where there is one. A virtual
  // slot names the point before it.
  void emit(int l, int o, const int32_t* order, const int32_t* outer) {
    const int at = l * a_.num_orientations + o;
    int64_t* index = a_.index[at];
    int64_t* inverse = a_.inverse[at];
    uint8_t* mask = o == 0 ? a_.mask[l] : nullptr;
    const int64_t size = a_.ball_sizes[l];
    for_pieces(l, [&](int64_t c, int64_t ball, int64_t last) {
      const int64_t base = point_ptr_[l][c];
      const int64_t shift = ball_ptr_[l][c] * size;
      const int32_t* first = first_[l].get() + ball_ptr_[l][c];
      const int32_t* slots = slot_[l].get() + base;
      const int64_t n = point_ptr_[l][c + 1] - base;
      const int64_t balls = ball_ptr_[l][c + 1] - ball_ptr_[l][c];
      for (; ball < last; ++ball) {
        const int64_t stop = ball + 1 < balls ? first[ball + 1] : n;
        for (int64_t i = first[ball]; i < stop; ++i) {
          const int64_t slot = slots[i];
          const int64_t end = i + 1 < stop ? slots[i + 1] : (ball + 1) * size;
          int64_t point = order ? order[base + i] : base + i;
          if (outer) point = outer[point];
          inverse[point] = shift + slot;
          for (int64_t s = slot; s < end; ++s) index[shift + s] = point;
          if (mask == nullptr) continue;
          mask[shift + slot] = 1;
          for (int64_t s = slot + 1; s < end; ++s) mask[shift + s] = 0;
        }
      }
    });
  }

  // Calls fn(cloud, ball, last) for runs of balls of about kGrain points.
  template <class Fn>
  void for_pieces(int l, Fn&& fn) {
    std::vector<int64_t> pieces;  // cloud, ball, last, ...
    const int64_t run = std::max<int64_t>(kGrain / a_.ball_sizes[l], 1);
    for (int64_t c = 0; c < a_.num_clouds; ++c) {
      const int64_t balls = ball_ptr_[l][c + 1] - ball_ptr_[l][c];
      for (int64_t b = 0; b < balls; b += run)
        pieces.insert(pieces.end(), {c, b, std::min(b + run, balls)});
    }
    team_.for_each(static_cast<int64_t>(pieces.size()) / 3,
                   [&](int64_t i, int) {
                     fn(pieces[3 * i], pieces[3 * i + 1], pieces[3 * i + 2]);
                   });
  }

  const TgeTree& a_;
  const int dim_;
  Team team_;
  std::vector<Scratch<T>> scratch_;
  std::vector<std::vector<int64_t>> point_ptr_, ball_ptr_;
  std::vector<std::unique_ptr<int32_t[]>> slot_, first_;
  std::unique_ptr<P[]> points_[2];
  std::unique_ptr<T[]> turned_, coords_, mass_;
  std::unique_ptr<int32_t[]> order_, turn_order_;
};

template <class T>
bool build(const TgeTree& args) {
  switch (args.dim) {
    case 1: return TreeBuilder<T, Packed<T, 1>>(args).run();
    case 2: return TreeBuilder<T, Packed<T, 2>>(args).run();
    case 3: return TreeBuilder<T, Packed<T, 3>>(args).run();
    case 4: return TreeBuilder<T, Packed<T, 4>>(args).run();
    default: return TreeBuilder<T, Indexed>(args).run();
  }
}

}  // namespace
}  // namespace tge

// 0: built; 1: a coordinate is not finite; 2: out of memory.
TGE_EXPORT int tge_build_tree(const TgeTree* args) {
  try {
    const bool finite = args->scalar_size == 4 ? tge::build<float>(*args)
                                               : tge::build<double>(*args);
    return finite ? 0 : 1;
  } catch (const std::bad_alloc&) {
    return 2;
  }
}
