// Attention within one ball, forward and backward. Included once for each
// instruction set, after `common/vector.h`, `attention/gather.h` and
// `attention/tiles.h`.
//
// All that a ball needs is first gathered into a thread's workspace, which
// stays in the cache: keys and values as they are where vectors run over a
// head's numbers, and transposed in panels of two vectors of points, [width,
// points of the panel] each, where vectors run over the ball's points. Queries
// are in panels of `kTile` points. Then `kStrip` queries at a time meet all
// keys of a head; their scores are in panels, too, [kStrip, points of the
// panel] each. So the inner loops read memory from one end to the other.
// Distances are computed for `kBlock` queries at a time and serve all heads.

namespace tge {
namespace attention {
namespace TGE_ISA {

TGE_TARGET static void strip_forward(const Args& a, const Space& s,
                                     const Ball& ball, const Strip& t,
                                     const float* v, int64_t i0,
                                     int64_t head) {
  for (int64_t i = 0; i < kStrip; i += kTile) {
    int64_t j = 0;
    for (; j + kPanel <= s.m; j += kPanel)
      tile_forward<2>(a, s, t, i, j);
    if (j < s.m) tile_forward<1>(a, s, t, i, j);
  }
  float most[kStrip], total[kStrip];
  normalize(s, most, total);
  multiply_rows(s, s.score, v, ball.size);
  for (int64_t i = 0; i < kStrip && i0 + i < ball.size; ++i) {
    const int64_t point = ball.points[i0 + i];
    store_row(s.rows + i * s.e, 1, 1 / total[i], a.width,
              static_cast<Storage>(a.storage), a.out.data,
              point * a.out.point + head * a.out.head);
    if (a.lse) a.lse[point * a.heads + head] = most[i] + std::log2(total[i]);
  }
}

TGE_TARGET static void forward(const Args& a, const Task& task, float* base) {
  const Ball& ball = task.ball;
  const int64_t heads = task.end - task.begin;
  Space s;
  s.lay_out(a, ball.size, heads, false, base);
  prepare(a, ball, s);
  const int64_t part = s.m * a.width;
  const float scale = kLog2e / std::sqrt(static_cast<float>(a.width));
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t head = task.begin + h;
    gather(a, ball, a.key, head, 1.f, s.m, a.width, s.plain);
    transpose<kPanel>(s.plain, s.m, a.width, a.width, s.kt + h * part);
    gather(a, ball, a.query, head, scale, s.m, a.width, s.plain);
    transpose<kTile>(s.plain, s.m, a.width, a.width, s.q + h * part);
    gather(a, ball, a.value, head, 1.f, s.m, s.e, s.v + h * s.m * s.e);
  }
  for (int64_t b = 0; b < ball.size; b += s.block) {
    const int64_t end = std::min(b + s.block, round_up(ball.size, kStrip));
    if (a.bias != kNone) measure(a, s, b, end);
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t head = task.begin + h;
      Strip t{};
      t.kt = s.kt + h * part;
      t.slope = a.bias == kNone ? 0.f : a.slope[head] * kLog2e;
      for (int64_t i = b; i < end; i += kStrip) {
        t.q = s.q + h * part + i * a.width;
        t.far = s.far + (i - b) * s.m;
        strip_forward(a, s, ball, t, s.v + h * s.m * s.e, i, head);
      }
    }
  }
}

// What the backward pass reads of a head, all gathered.
TGE_TARGET static void gather_head(const Args& a, const Ball& ball,
                                   const Space& s, int64_t h, int64_t head) {
  const int64_t part = s.m * a.width;
  const float scale = kLog2e / std::sqrt(static_cast<float>(a.width));
  float *g = s.g + h * part, *k = s.k + h * s.m * s.e;
  gather(a, ball, a.value, head, 1.f, s.m, a.width, s.plain);
  transpose<kPanel>(s.plain, s.m, a.width, a.width, s.vt + h * part);
  gather(a, ball, a.key, head, 1.f, s.m, s.e, k);
  transpose<kPanel>(k, s.m, s.e, a.width, s.kt + h * part);
  gather(a, ball, a.out, head, 1.f, s.m, a.width, g);  // gives way below
  gather(a, ball, a.grad, head, 1.f, s.m, a.width, s.plain);
  for (int64_t i = 0; i < s.m; ++i) {
    float delta = 0.f;
    for (int64_t c = 0; c < a.width; ++c)
      delta += g[i * a.width + c] * s.plain[i * a.width + c];
    s.delta[h * s.m + i] = delta;
    s.lse[h * s.m + i] =
        i < ball.size ? a.lse[ball.points[i] * a.heads + head]
                      : std::numeric_limits<float>::infinity();
  }
  transpose<kTile>(s.plain, s.m, a.width, a.width, g);
  gather(a, ball, a.query, head, scale, s.m, a.width, s.plain);
  transpose<kTile>(s.plain, s.m, a.width, a.width, s.q + h * part);
  clear(s.dkt + h * part, part);
  clear(s.dvt + h * part, part);
}

TGE_TARGET static double strip_backward(const Args& a, const Space& s,
                                        const Ball& ball, const Strip& t,
                                        int64_t i0, int64_t h, int64_t head) {
  V steep{};
  for (int64_t i = 0; i < kStrip; i += kTile) {
    int64_t j = 0;
    for (; j + kPanel <= s.m; j += kPanel)
      tile_backward<2>(a, s, t, i, j, steep);
    if (j < s.m) tile_backward<1>(a, s, t, i, j, steep);
  }
  const int64_t part = s.m * a.width;
  if (a.d_value.data) update(s, s.score, t.g, a.width, s.dvt + h * part);
  if (a.d_key.data) update(s, s.change, t.q, a.width, s.dkt + h * part);
  if (a.d_query.data) {
    multiply_rows(s, s.change, s.k + h * s.m * s.e, ball.size);
    const float scale = 1 / std::sqrt(static_cast<float>(a.width));
    for (int64_t i = 0; i < kStrip && i0 + i < ball.size; ++i)
      store_row(s.rows + i * s.e, 1, scale, a.width,
                static_cast<Storage>(a.storage), a.d_query.data,
                ball.points[i0 + i] * a.d_query.point +
                    head * a.d_query.head);
  }
  return sum(steep);
}

template <int kDim>
TGE_TARGET static void move_lattice(const Args& a, const Space& s, int64_t i,
                                    const float* pull) {
  float own[(2 * kDim + 1) * kWidth];
  const int64_t dim = kDim ? kDim : a.dim;
  float* gap = kDim ? own : s.gap;
  float* step = kDim ? own + kDim * kWidth : s.step;
  for (int64_t j = 0; j < s.m; j += kWidth) {
    nearest(s, dim, i, j, gap, step);
    for (int64_t c = 0; c < dim; ++c) {
      float* dx = s.dx + c * s.m;
      const V pulled = load(pull + j) * load(gap + c * kWidth);
      store(dx + j, load(dx + j) - pulled);
      dx[i] += sum(pulled);
    }
  }
}

// From the gradients of a block's distances to those of positions. They get
// here multiplied by `kLog2e`, as the slopes are.
TGE_TARGET static void move(const Args& a, const Space& s, int64_t begin,
                            int64_t end) {
  const bool lattice = s.periodic && a.box_rows > 1;
  const V two = splat(2 / kLog2e), one = splat(1 / kLog2e);
  for (int64_t i = begin; i < end; ++i) {
    float* pull = s.pull + (i - begin) * s.m;
    const float* far = s.far + (i - begin) * s.m;
    for (int64_t j = 0; j < s.m; j += kWidth) {
      const V p = load(pull + j), d = load(far + j);
      store(pull + j, a.bias == kSquared
                          ? p * two
                          : choose(V{}, d, p * one / d, V{}));
    }
    if (lattice) {
      (a.dim == 3   ? move_lattice<3>
       : a.dim == 2 ? move_lattice<2>
                    : move_lattice<0>)(a, s, i, pull);
      continue;
    }
    for (int64_t c = 0; c < a.dim; ++c) {
      const float* x = s.x + c * s.m;
      float* dx = s.dx + c * s.m;
      const V here = splat(x[i]);
      V own{};
      for (int64_t j = 0; j < s.m; j += kWidth) {
        V d = here - load(x + j);
        if (s.periodic) d = shorten(d, s.cell[c]);
        const V pulled = load(pull + j) * d;
        own = own + pulled;
        store(dx + j, load(dx + j) - pulled);
      }
      dx[i] += sum(own);
    }
  }
}

TGE_TARGET static void backward(const Args& a, const Task& task,
                                float* base) {
  const Ball& ball = task.ball;
  const int64_t heads = task.end - task.begin;
  Space s;
  s.lay_out(a, ball.size, heads, true, base);
  prepare(a, ball, s);
  for (int64_t h = 0; h < heads; ++h)
    gather_head(a, ball, s, h, task.begin + h);
  if (a.d_pos) clear(s.dx, a.dim * s.m);
  const int64_t part = s.m * a.width;
  for (int64_t b = 0; b < ball.size; b += s.block) {
    const int64_t end = std::min(b + s.block, round_up(ball.size, kStrip));
    if (a.bias != kNone) measure(a, s, b, end);
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t head = task.begin + h;
      Strip t{};
      t.kt = s.kt + h * part;
      t.vt = s.vt + h * part;
      t.slope = a.bias == kNone ? 0.f : a.slope[head] * kLog2e;
      t.first = h == 0;
      double steep = 0.;
      for (int64_t i = b; i < end; i += kStrip) {
        t.q = s.q + h * part + i * a.width;
        t.g = s.g + h * part + i * a.width;
        t.lse = s.lse + h * s.m + i;
        t.delta = s.delta + h * s.m + i;
        t.far = s.far + (i - b) * s.m;
        t.pull = s.pull + (i - b) * s.m;
        steep += strip_backward(a, s, ball, t, i, h, head);
      }
      if (a.d_slope) task.d_slope[head] += steep;
    }
    if (a.d_pos) move(a, s, b, end);
  }
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t head = task.begin + h;
    if (a.d_key.data)
      scatter(a, ball, s.dkt + h * part, s.m, head, 1 / kLog2e, a.d_key);
    if (a.d_value.data)
      scatter(a, ball, s.dvt + h * part, s.m, head, 1.f, a.d_value);
  }
  if (a.d_pos)
    for (int64_t i = 0; i < ball.size; ++i)
      for (int64_t c = 0; c < a.dim; ++c)
        task.d_pos[ball.points[i] * a.dim + c] = s.dx[c * s.m + i];
}

// Floats that a ball of so many points needs.
static int64_t floats(const Args& a, int64_t points, int64_t heads,
                      bool backward) {
  Space s;
  return s.lay_out(a, points, heads, backward, nullptr);
}

}  // namespace TGE_ISA
}  // namespace attention
}  // namespace tge
#undef TGE_VECTOR
