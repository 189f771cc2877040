// Attention within balls: the entry points, and the choice of a variant for
// the machine. What happens within one ball is in `attention/kernel.h`.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "attention/args.h"
#include "common/export.h"
#include "common/isa.h"
#include "common/parallel.h"

#define TGE_KERNELS "attention/kernels.h"
#include "common/each_isa.h"

namespace tge {
namespace attention {
namespace {

struct Variant {
  void (*forward)(const Args&, const Task&, float*);
  void (*backward)(const Args&, const Task&, float*);
  int64_t (*floats)(const Args&, int64_t points, int64_t heads,
                    bool backward);
};

// `most` keeps wider vectors out, for tests.
Variant variant(int most) {
#if defined(TGE_MORE_ISAS)
  const int level = isa_level(most);
  if (level == 2)
    return {avx512::forward, avx512::backward, avx512::floats};
  if (level == 1)
    return {avx2::forward, avx2::backward, avx2::floats};
#endif
  (void)most;
  return {portable::forward, portable::backward, portable::floats};
}

// Balls with points, their points side by side in `points`.
std::vector<Ball> find_balls(const Args& a, std::vector<int64_t>& points) {
  std::vector<Ball> balls;
  balls.reserve(std::min(a.num_balls, a.num_points));
  if (a.mask) points.reserve(a.num_points);
  for (int64_t id = 0; id < a.num_balls; ++id) {
    const int64_t* index = a.index + id * a.ball_size;
    if (!a.mask) {
      balls.push_back({index, a.ball_size, id});
      continue;
    }
    const uint8_t* mask = a.mask + id * a.ball_size;
    const size_t before = points.size();
    for (int64_t i = 0; i < a.ball_size; ++i)
      if (mask[i]) points.push_back(index[i]);
    if (points.size() == before) continue;
    const int64_t size = static_cast<int64_t>(points.size() - before);
    balls.push_back({nullptr, size, id});
  }
  if (!a.mask) return balls;
  const int64_t* next = points.data();
  for (Ball& ball : balls) {
    ball.points = next;
    next += ball.size;
  }
  return balls;
}

// A few balls are divided by heads, too. The number of threads must not
// matter: sums over heads depend on how these are grouped.
int64_t heads_at_once(const Args& a, int64_t balls) {
  const int64_t groups = balls < 32 ? std::min<int64_t>(a.heads, 4) : 1;
  return (a.heads + groups - 1) / groups;
}

// Starting a thread takes as long as some hundred thousand multiplications.
int useful_threads(const Args& a, const std::vector<Ball>& balls,
                   int64_t tasks) {
  double work = 0.;
  for (const Ball& ball : balls)
    work += static_cast<double>(ball.size) * ball.size;
  work *= static_cast<double>(a.heads) * (a.width + 8);
  const double most = std::min<double>(a.num_threads, 1 + work / (1 << 20));
  return static_cast<int>(std::min<double>(most, std::max<int64_t>(tasks, 1)));
}

float* aligned(std::vector<float>& space) {
  const auto at = reinterpret_cast<uintptr_t>(space.data());
  return space.data() + (64 - at % 64) % 64 / sizeof(float);
}

template <class T>
void add_up(const std::vector<double>& parts, int64_t n, T* out) {
  const int64_t count = static_cast<int64_t>(parts.size());
  for (int64_t i = 0; i < n; ++i) {
    double all = 0.;
    for (int64_t j = i; j < count; j += n) all += parts[j];
    out[i] = static_cast<T>(all);
  }
}

// Whether there are as many slots as points, and of points that exist.
bool fits(const Args& a, const std::vector<Ball>& balls) {
  int64_t count = 0;
  bool inside = true;
  for (const Ball& ball : balls) {
    count += ball.size;
    for (int64_t i = 0; i < ball.size; ++i)
      inside &= ball.points[i] >= 0 && ball.points[i] < a.num_points;
  }
  return inside && count == a.num_points;
}

bool run(const Args& a, bool backward, int most) {
  std::vector<int64_t> points;
  const std::vector<Ball> balls = find_balls(a, points);
  if (!fits(a, balls)) return false;
  const int64_t num_balls = static_cast<int64_t>(balls.size());
  int64_t largest = 0;
  for (const Ball& ball : balls) largest = std::max(largest, ball.size);
  const int64_t heads = heads_at_once(a, num_balls);
  const int64_t groups = (a.heads + heads - 1) / heads;
  const int64_t tasks = num_balls * groups;
  const bool moving = backward && a.d_pos, steep = backward && a.d_slope;

  const Variant kernel = variant(most);
  const int64_t size = kernel.floats(a, largest, heads, backward) + 16;
  Team team(useful_threads(a, balls, tasks), a.num_threads);
  std::vector<std::vector<float>> spaces(team.size());
  std::vector<double> d_slope(steep ? num_balls * a.heads : 0);
  std::vector<double> d_pos(moving ? groups * a.num_points * a.dim : 0);
  team.for_each(tasks, [&](int64_t i, int thread) {
    std::vector<float>& space = spaces[thread];
    if (space.empty()) space.resize(size);
    const int64_t ball = i / groups, group = i % groups;
    const Task task{
        balls[ball], group * heads, std::min(a.heads, (group + 1) * heads),
        steep ? d_slope.data() + ball * a.heads : nullptr,
        moving ? d_pos.data() + group * a.num_points * a.dim : nullptr};
    (backward ? kernel.backward : kernel.forward)(a, task, aligned(space));
  });
  if (steep) add_up(d_slope, a.heads, a.d_slope);
  if (!moving) return true;
  const int64_t n = a.num_points * a.dim;
  a.pos_is_double ? add_up(d_pos, n, static_cast<double*>(a.d_pos))
                  : add_up(d_pos, n, static_cast<float*>(a.d_pos));
  return true;
}

}  // namespace
}  // namespace attention
}  // namespace tge

// 0: done; 1: the slots do not hold each point once; 2: out of memory.
TGE_EXPORT int tge_ball_attention(const tge::attention::Args* args,
                                  int backward, int most) {
  try {
    return tge::attention::run(*args, backward != 0, most) ? 0 : 1;
  } catch (const std::bad_alloc&) {
    return 2;
  }
}
