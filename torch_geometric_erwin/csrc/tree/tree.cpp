// Builds the levels and orientations of a ball tree (Zhdanov et al., 2025,
// Algorithm 1) for a batch of point clouds.
#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <vector>

#include "tree/centers.h"
#include "common/export.h"
#include "tree/grow.h"
#include "tree/layout.h"
#include "tree/args.h"
#include "tree/turn.h"

namespace tge {
namespace {

constexpr int64_t kSerial = 8192;  // fewer points do not pay for a thread

// Builds the trees of the clouds from `first_cloud` up to `last_cloud`.
template <class T, class P>
class TreeBuilder {
 public:
  using S = Space<T, P>;

  TreeBuilder(const TgeTree& args, int64_t first_cloud, int64_t last_cloud,
              int num_threads)
      : a_(args),
        dim_(args.dim),
        first_cloud_(first_cloud),
        num_clouds_(last_cloud - first_cloud),
        pos_(static_cast<const T*>(args.pos) +
             args.point_ptr[0][first_cloud] * dim_),
        team_(num_threads, args.num_threads),
        grower_(args.dim, team_) {
    offsets();
  }

  // False where a coordinate is not finite or too large, maybe when turned.
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
  int64_t total(int l) const { return point_ptr_[l].back(); }

  // The points and balls before these clouds, and those of each cloud.
  void offsets() {
    const int64_t width = a_.num_clouds + 1;
    for (int l = 0; l < a_.num_levels; ++l) {
      point_ptr_.push_back(slice(a_.point_ptr[l], point_base_));
      ball_ptr_.push_back(slice(a_.ball_ptr + l * width, ball_base_));
      slot_.emplace_back(new int32_t[point_ptr_[l].back()]);
      first_.emplace_back(new int32_t[ball_ptr_[l].back()]);
    }
  }

  std::vector<int64_t> slice(const int64_t* ptr,
                             std::vector<int64_t>& bases) const {
    ptr += first_cloud_;
    bases.push_back(ptr[0]);
    std::vector<int64_t> out(ptr, ptr + num_clouds_ + 1);
    for (int64_t& offset : out) offset -= bases.back();
    return out;
  }

  Counts counts(int64_t c) const {
    Counts counts{};
    for (int l = 0; l < a_.num_levels; ++l)
      counts.balls[l] =
          static_cast<int32_t>(ball_ptr_[l][c + 1] - ball_ptr_[l][c]);
    return counts;
  }

  void layout() {
    team_.for_each(num_clouds_, [&](int64_t c, int) {
      Level levels[kMaxLevels];
      for (int l = 0; l < a_.num_levels; ++l) {
        levels[l].ball_size = a_.ball_sizes[l];
        levels[l].stride = l + 1 < a_.num_levels ? a_.strides[l] : 0;
        levels[l].slot = slot_[l].get() + point_ptr_[l][c];
        levels[l].first = first_[l].get() + ball_ptr_[l][c];
      }
      Layout(levels, a_.num_levels)
          .run(point_ptr_[0][c + 1] - point_ptr_[0][c], counts(c));
    });
  }

  bool first_orientation() {
    const int64_t n = total(0);
    grower_.reserve(n);
    order_.reset(new int32_t[n]);
    if (std::is_same_v<P, Indexed>) turned_.reset(new T[n * dim_]);
    find_origins();
    if (!load(pos_, 0, 0, origins_.get())) return false;
    std::vector<Node<Counts>> roots;
    for (int64_t c = 0; c < num_clouds_; ++c) {
      const int64_t begin = point_ptr_[0][c];
      const int64_t size = point_ptr_[0][c + 1] - begin;
      if (size > 0) roots.push_back({begin, size, 0, counts(c)});
    }
    const int64_t size = a_.ball_sizes[0], stride = a_.strides[0];
    grower_.run(std::move(roots), S(dim_, turned_.get()),
                Whole{a_.num_levels, size, stride ? stride : size,
                      order_.get()},
                plane(0));
    emit(0, 0, order_.get(), nullptr);
    if (a_.num_levels * a_.num_orientations > 1) gather();
    return true;
  }

  // Which way splits along principal axes are turned, if there are such.
  const Plane* plane(int o) {
    plane_ = {a_.orientations[o].cosine, a_.orientations[o].sine};
    return a_.is_principal ? &plane_ : nullptr;
  }

  // Loads a level's points, turned; false where a coordinate is not finite or
  // too large. A sum of zeros tells: infinity times zero is NaN.
  bool load(const T* coords, int l, int o, const T* origins) {
    const Turn<T> turn(a_, o);
    std::atomic<bool> finite{true};
    team_.chunks(total(l), kGrain, [&](int64_t begin, int64_t end, int) {
      const T zero =
          turn.load(coords, begin, end, point_ptr_[l], first_cloud_, origins,
                    grower_.points(), turned_.get());
      if (!(zero == 0)) finite = false;
    });
    return finite;
  }

  // The least coordinates of each cloud, for clouds that are not periodic.
  void find_origins() {
    const bool turns = a_.num_levels * a_.num_orientations > 1 ||
                       a_.orientations[0].sine != 0.0;
    if (a_.box || !turns) return;
    origins_.reset(new T[num_clouds_ * dim_]);
    team_.for_each(num_clouds_, [&](int64_t c, int) {
      T* low = &origins_[c * dim_];
      const int64_t begin = point_ptr_[0][c], end = point_ptr_[0][c + 1];
      if (begin < end) std::copy_n(pos_ + begin * dim_, dim_, low);
      for (int64_t i = begin; i < end; ++i)
        for (int a = 0; a < dim_; ++a)
          low[a] = std::min(low[a], pos_[i * dim_ + a]);
    });
  }

  // The points in the order of the tree, where all that follows reads them.
  void gather() {
    const T* mass = static_cast<const T*>(a_.mass);
    coords_.reset(new T[total(0) * dim_]);
    if (mass) mass_.reset(new T[total(0)]);
    team_.chunks(total(0), kGrain, [&](int64_t begin, int64_t end, int) {
      int64_t cloud = 0;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t from = order_[i];
        while (i >= point_ptr_[0][cloud + 1]) ++cloud;
        const T* low = origins_ ? &origins_[cloud * dim_] : nullptr;
        for (int a = 0; a < dim_; ++a)
          coords_[i * dim_ + a] = pos_[from * dim_ + a] - (low ? low[a] : 0);
        if (mass) mass_[i] = mass[point_base_[0] + from];
      }
    });
  }

  bool orientation(int l, int o) {
    const int64_t n = total(l);
    if (turn_order_ == nullptr) turn_order_.reset(new int32_t[n]);
    if (dim_ == 1) {
      slide(l, o);
    } else {
      if (!load(coords_.get(), l, o, nullptr)) return false;
      std::vector<Node<Balls::State>> roots;
      for (int64_t c = 0; c < num_clouds_; ++c) {
        const int64_t begin = point_ptr_[l][c];
        if (point_ptr_[l][c + 1] > begin)
          roots.push_back({begin, point_ptr_[l][c + 1] - begin, 0,
                           {ball_ptr_[l][c], ball_ptr_[l][c + 1]}});
      }
      grower_.run(std::move(roots), S(dim_, turned_.get()),
                  Balls{first_[l].get(), turn_order_.get()}, plane(o));
    }
    emit(l, o, turn_order_.get(), l == 0 ? order_.get() : nullptr);
    return true;
  }

  // A line cannot be turned: the balls move along it by part of a ball.
  void slide(int l, int o) {
    team_.for_each(num_clouds_, [&](int64_t c, int) {
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

  // The next level's points: centres of mass of `stride` neighbouring slots.
  void coarsen(int l) {
    const int64_t stride = a_.strides[l - 1];
    std::unique_ptr<T[]> coords(new T[total(l) * dim_]);
    std::unique_ptr<T[]> masses(new T[total(l)]);
    const int64_t parts = num_clouds_ == 1 ? 4 * team_.size() : 1;
    team_.for_each(num_clouds_ * parts, [&](int64_t task, int) {
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
      Centers<T> centers(dim_, stride);
      while (i < end) {
        const int64_t group = centers.group(slot[i]);
        int64_t last = i + 1;
        while (last < end && centers.group(slot[last]) == group) ++last;
        masses[to] = centers.run(&coords_[(base + i) * dim_],
                                 mass_ ? &mass_[base + i] : nullptr, slot + i,
                                 last - i, &coords[to * dim_]);
        ++to;
        i = last;
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
    const int64_t size = a_.ball_sizes[l];
    const int64_t point_base = point_base_[l];
    const int64_t slot_base = ball_base_[l] * size;
    int64_t* index = a_.index[at] + slot_base;
    int64_t* inverse = a_.inverse[at] + point_base;
    uint8_t* mask = o == 0 ? a_.mask[l] + slot_base : nullptr;
    for_pieces(l, [&](int64_t c, int64_t ball, int64_t last) {
      const int64_t base = point_ptr_[l][c];
      const int64_t shift = ball_ptr_[l][c] * size;
      const int32_t* first = first_[l].get() + ball_ptr_[l][c];
      const int32_t* slots = slot_[l].get() + base;
      const int64_t n = point_ptr_[l][c + 1] - base;
      const int64_t balls = ball_ptr_[l][c + 1] - ball_ptr_[l][c];
      const auto point_at = [=](int64_t i) -> int64_t {
        const int64_t place = order ? order[base + i] : base + i;
        return outer ? outer[place] : place;
      };
      for (; ball < last; ++ball) {
        const int64_t stop = ball + 1 < balls ? first[ball + 1] : n;
        const int64_t begin = shift + ball * size;
        if (mask) std::fill_n(mask + begin, size, uint8_t(0));
        for (int64_t i = first[ball]; i < stop; ++i) {
          const int64_t slot = shift + slots[i];
          const int64_t end =
              i + 1 < stop ? shift + slots[i + 1] : begin + size;
          const int64_t point = point_at(i);
          inverse[point] = slot_base + slot;
          index[slot] = point_base + point;
          if (mask) mask[slot] = 1;
          for (int64_t s = slot + 1; s < end; ++s) index[s] = index[slot];
        }
      }
    });
  }

  // Calls fn(cloud, ball, last) for runs of balls of about kGrain points.
  template <class Fn>
  void for_pieces(int l, Fn&& fn) {
    std::vector<int64_t> pieces;  // cloud, ball, last, ...
    const int64_t run = std::max<int64_t>(kGrain / a_.ball_sizes[l], 1);
    for (int64_t c = 0; c < num_clouds_; ++c) {
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
  const int64_t first_cloud_, num_clouds_;
  const T* const pos_;
  Team team_;
  Grower<S> grower_;
  Plane plane_;
  std::vector<int64_t> point_base_, ball_base_;  // of the clouds before
  std::vector<std::vector<int64_t>> point_ptr_, ball_ptr_;
  std::vector<std::unique_ptr<int32_t[]>> slot_, first_;
  std::unique_ptr<T[]> turned_, coords_, mass_, origins_;
  std::unique_ptr<int32_t[]> order_, turn_order_;
};

// Runs of clouds that are small against a thread's share: each is built by
// one thread, within its cache. Empty where a large cloud needs them all.
std::vector<int64_t> runs_of_clouds(const TgeTree& args, int threads) {
  const int64_t* ptr = args.point_ptr[0];
  const int64_t n = ptr[args.num_clouds];
  const int64_t share = n / (2 * threads) + 1;
  const int64_t enough =
      std::max<int64_t>(1, std::min(n / (8 * threads), kGrain));
  std::vector<int64_t> ends{0};
  for (int64_t c = 0; c < args.num_clouds; ++c) {
    if (threads > 1 && ptr[c + 1] - ptr[c] > share) return {};
    const bool is_last = c + 1 == args.num_clouds;
    if (is_last || ptr[c + 1] - ptr[ends.back()] >= enough)
      ends.push_back(c + 1);
  }
  return ends;
}

template <class T, class P>
bool build_clouds(const TgeTree& args) {
  const int64_t n = args.point_ptr[0][args.num_clouds];
  const int threads = static_cast<int>(std::max<int64_t>(
      1, std::min<int64_t>(args.num_threads, n / kSerial)));
  const auto ends = runs_of_clouds(args, threads);
  if (ends.empty())
    return TreeBuilder<T, P>(args, 0, args.num_clouds, threads).run();
  std::atomic<bool> finite{true};
  Team team(threads, args.num_threads);
  const int64_t runs = static_cast<int64_t>(ends.size()) - 1;
  team.for_each(runs, [&](int64_t i, int) {
    if (!TreeBuilder<T, P>(args, ends[i], ends[i + 1], 1).run())
      finite = false;
  });
  return finite;
}

template <class T>
bool build(const TgeTree& args) {
  switch (args.dim) {
    case 1: return build_clouds<T, Packed<T, 1>>(args);
    case 2: return build_clouds<T, Packed<T, 2>>(args);
    case 3: return build_clouds<T, Packed<T, 3>>(args);
    case 4: return build_clouds<T, Packed<T, 4>>(args);
    default: return build_clouds<T, Indexed>(args);
  }
}

}  // namespace
}  // namespace tge

// 0: built; 1: a coordinate is not finite or too large, maybe when turned; 2:
// out of memory; 3: too many levels.
TGE_EXPORT int tge_build_tree(const tge::TgeTree* args) {
  if (args->num_levels > tge::kMaxLevels) return 3;
  try {
    const bool finite = args->scalar_size == 4 ? tge::build<float>(*args)
                                               : tge::build<double>(*args);
    return finite ? 0 : 1;
  } catch (const std::bad_alloc&) {
    return 2;
  }
}
