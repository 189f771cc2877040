// What attention within one ball works on: a thread's workspace, what gathers
// the points into it, and distances. Included as `common/vector.h` is.

namespace tge {
namespace attention {
namespace TGE_ISA {

using namespace vectors::TGE_ISA;

constexpr int64_t kStrip = 8, kBlock = 64;
constexpr int64_t kRound = kWidth < 8 ? 8 : kWidth;
constexpr int64_t kPanel = 2 * kWidth;
constexpr float kLog2e = 1.44269504088896341f;

static int64_t round_up(int64_t n, int64_t step) {
  return (n + step - 1) / step * step;
}

// The workspace of a thread. Lengths are `m`, the points of the ball, rounded
// up, or `e`, the width of a head, rounded up.
struct Space {
  int64_t m, e, block;
  bool periodic;            // whether images other than those here may be near
  float *x, *dx, *cell;     // [dim, m], [dim, m], [box_rows, dim]
  float *gap, *step;        // [dim, kWidth]: see `nearest`
  int64_t images;           // how many translations may bring points nearer
  float* square;            // [box_rows]: how long these are, squared
  float* hide;              // [m]: minus infinity past the ball's points
  float *far, *pull;        // [block, m]
  float *score, *change;    // [kStrip, m] in panels
  float* rows;              // [kStrip, e]
  float* plain;             // [m, width]: rows before they are transposed
  float *q, *g;             // of each head: [width, m] in panels of `kTile`
  float *kt, *vt;           // of each head: [width, m] in panels
  float *k, *v;             // of each head: [m, e]
  float *dkt, *dvt;         // of each head: [width, m] in panels
  float *lse, *delta;       // of each head: [m]

  // Counts the floats, and hands them out if there is a `base`.
  int64_t lay_out(const Args& a, int64_t points, int64_t heads,
                  bool backward, float* base) {
    int64_t used = 0;
    const auto take = [&](float*& part, int64_t size) {
      part = base ? base + used : nullptr;
      used += round_up(size, 16);
    };
    const bool far_away = a.bias != kNone;
    m = round_up(points, kRound);
    e = round_up(a.width, kWidth);
    block = far_away && m > kBlock ? kBlock : m;
    const int64_t keep = backward ? 1 : 0, apart = far_away ? 1 : 0;
    take(x, apart * a.dim * m);
    take(dx, keep * apart * a.dim * m);
    take(cell, a.box_rows * a.dim);
    take(gap, a.dim * kWidth);
    take(step, a.dim * kWidth);
    take(square, a.box_rows);
    take(hide, m);
    take(far, apart * block * m);
    take(pull, keep * apart * block * m);
    take(score, kStrip * m);
    take(change, keep * kStrip * m);
    take(rows, kStrip * e);
    take(plain, m * a.width);
    take(q, heads * m * a.width);
    take(kt, heads * m * a.width);
    take(backward ? k : v, heads * m * e);
    take(g, keep * heads * m * a.width);
    take(vt, keep * heads * m * a.width);
    take(dkt, keep * heads * m * a.width);
    take(dvt, keep * heads * m * a.width);
    take(lse, keep * heads * m);
    take(delta, keep * heads * m);
    return used;
  }
};

TGE_TARGET static void clear(float* x, int64_t n) {
  std::memset(x, 0, n * sizeof(float));
}

// [rows of points, width] -> [m, stride], zeros past the points.
TGE_TARGET static void gather(const Args& a, const Ball& ball,
                              const Rows& from, int64_t head, float scale,
                              int64_t m, int64_t stride, float* to) {
  const Storage type = static_cast<Storage>(a.storage);
  const int64_t bytes = type == kFloat ? 4 : 2;
  for (int64_t i = 0; i < ball.size; ++i) {
    const int64_t next = ball.points[std::min(i + 16, ball.size - 1)];
    TGE_PREFETCH(static_cast<const char*>(from.data) +
                 (next * from.point + head * from.head) * bytes);
    load_row(from.data, ball.points[i] * from.point + head * from.head,
             a.width, type, scale, to + i * stride);
    for (int64_t j = a.width; j < stride; ++j) to[i * stride + j] = 0.f;
  }
  clear(to + ball.size * stride, (m - ball.size) * stride);
}

// [m, stride] -> [width, m] in panels of `kSize`
template <int64_t kSize>
TGE_TARGET static void transpose(const float* from, int64_t m, int64_t stride,
                                 int64_t width, float* to) {
  int64_t i = 0;
  for (; i + kSize <= m; i += kSize)
    for (int64_t c = 0; c < width; ++c)
      for (int64_t j = 0; j < kSize; ++j) *to++ = from[(i + j) * stride + c];
  for (int64_t c = 0; c < width && i < m; ++c)
    for (int64_t j = 0; j < m - i; ++j) *to++ = from[(i + j) * stride + c];
}

// [width, m] in panels -> rows of points
TGE_TARGET static void scatter(const Args& a, const Ball& ball,
                               const float* from, int64_t m, int64_t head,
                               float scale, const Rows& to) {
  for (int64_t i = 0; i < ball.size; ++i) {
    const int64_t j = i % kPanel, size = std::min(kPanel, m - (i - j));
    store_row(from + (i - j) * a.width + j, size, scale, a.width,
              static_cast<Storage>(a.storage), to.data,
              ball.points[i] * to.point + head * to.head);
  }
}

// Whether no two points are farther apart than half of what the shortest
// translation is at least, so that no image is nearer than the point itself.
TGE_TARGET static bool is_narrow(const Args& a, const Ball& ball,
                                 const Space& s) {
  double diagonal = 0., shortest = std::numeric_limits<double>::infinity();
  for (int64_t c = 0; c < a.dim; ++c) {
    const auto ends =
        std::minmax_element(s.x + c * s.m, s.x + c * s.m + ball.size);
    const double side = double(*ends.second) - double(*ends.first);
    diagonal += side * side;
    double square = 0.;
    if (a.box_rows == 1) {
      square = double(s.cell[c]) * s.cell[c];
    } else {
      for (int64_t b = 0; b < a.dim; ++b) {
        const double dual = s.cell[(a.dim + c) * a.dim + b];
        square += dual * dual;
      }
      square = 1 / square;
    }
    shortest = std::min(shortest, square);
  }
  return diagonal <= 0.2499 * shortest;
}

// Counts the translations, before those that only fill up.
TGE_TARGET static void count_images(const Args& a, Space& s) {
  s.images = 0;
  for (int64_t k = 2 * a.dim; k < a.box_rows; ++k) {
    const float* image = s.cell + k * a.dim;
    float square = 0.f;
    for (int64_t c = 0; c < a.dim; ++c) square += image[c] * image[c];
    if (square == 0.f) break;
    s.square[s.images++] = square;
  }
}

// Positions, one axis after the other. Those in double precision are taken
// relative to the ball's first.
template <class T>
TGE_TARGET static void gather_positions(const Args& a, const Ball& ball,
                                        Space& s) {
  const T* pos = static_cast<const T*>(a.pos);
  const T* first = pos + ball.points[0] * a.dim;
  for (int64_t c = 0; c < a.dim; ++c) {
    float* x = s.x + c * s.m;
    const T origin = sizeof(T) == 8 ? first[c] : 0;
    for (int64_t i = 0; i < ball.size; ++i)
      x[i] = static_cast<float>(pos[ball.points[i] * a.dim + c] - origin);
    for (int64_t i = ball.size; i < s.m; ++i) x[i] = 0.f;
  }
  s.periodic = a.box != nullptr;
  if (!s.periodic) return;
  const int64_t size = a.box_rows * a.dim;
  const T* cell = static_cast<const T*>(a.box) + ball.id * size;
  for (int64_t i = 0; i < size; ++i) s.cell[i] = static_cast<float>(cell[i]);
  s.periodic = !is_narrow(a, ball, s);
  count_images(a, s);
}

TGE_TARGET static void prepare(const Args& a, const Ball& ball, Space& s) {
  for (int64_t j = 0; j < s.m; ++j)
    s.hide[j] = j < ball.size ? 0.f : -std::numeric_limits<float>::infinity();
  if (a.bias == kNone) return;
  a.pos_is_double ? gather_positions<double>(a, ball, s)
                  : gather_positions<float>(a, ball, s);
}

// The shortest differences of a coordinate and others.
TGE_VECTOR V shorten(V d, float edge) {
  const V whole = splat(edge);
  return d - whole * rounded(d / whole);
}

TGE_VECTOR V along(const float* gap, int64_t dim, const float* row) {
  V sum = load(gap) * splat(row[0]);
  for (int64_t c = 1; c < dim; ++c)
    sum = sum + load(gap + c * kWidth) * splat(row[c]);
  return sum;
}

TGE_VECTOR void take_step(float* gap, float* step, int64_t dim) {
  for (int64_t c = 0; c < dim * kWidth; c += kWidth) {
    store(gap + c, load(gap + c) - load(step + c));
    store(step + c, V{});
  }
}

// The differences of a point and some others, of their nearest images in a
// lattice, as `nearest_image` in `ops/periodic.py` has them: [dim] vectors in
// `gap`. These and `step` stay in registers where `dim` is a constant.
TGE_VECTOR void nearest(const Space& s, int64_t dim, int64_t i, int64_t j,
                        float* gap, float* step) {
  for (int64_t c = 0; c < dim; ++c) {
    const float* x = s.x + c * s.m;
    store(gap + c * kWidth, splat(x[i]) - load(x + j));
    store(step + c * kWidth, V{});
  }
  for (int64_t b = 0; b < dim; ++b) {
    const V times = rounded(along(gap, dim, s.cell + (dim + b) * dim));
    for (int64_t c = 0; c < dim; ++c)
      store(step + c * kWidth, load(step + c * kWidth) +
                                   times * splat(s.cell[b * dim + c]));
  }
  take_step(gap, step, dim);
  V most{};
  for (int64_t k = 0; k < s.images; ++k) {
    const float* image = s.cell + (2 * dim + k) * dim;
    const V product = along(gap, dim, image), other = splat(0.f) - product;
    const V gain = largest(product, other) * splat(2.f) - splat(s.square[k]);
    const V sign = choose(product, V{}, splat(-1.f), splat(1.f));
    for (int64_t c = 0; c < dim; ++c)
      store(step + c * kWidth, choose(most, gain, sign * splat(image[c]),
                                      load(step + c * kWidth)));
    most = largest(most, gain);
  }
  take_step(gap, step, dim);
}

template <int kDim>
TGE_TARGET static void measure_lattice(const Args& a, const Space& s,
                                       int64_t i, float* far) {
  float own[(2 * kDim + 1) * kWidth];
  const int64_t dim = kDim ? kDim : a.dim;
  float* gap = kDim ? own : s.gap;
  float* step = kDim ? own + kDim * kWidth : s.step;
  for (int64_t j = 0; j < s.m; j += kWidth) {
    nearest(s, dim, i, j, gap, step);
    V square{};
    for (int64_t c = 0; c < dim; ++c) {
      const V d = load(gap + c * kWidth);
      square = fma(d, d, square);
    }
    store(far + j, a.bias == kDistance ? root(square) : square);
  }
}

template <int kDim>
TGE_TARGET static void measure_plain(const Args& a, const Space& s, int64_t i,
                                     float* far) {
  const int64_t dim = kDim ? kDim : a.dim, m = s.m;
  const bool periodic = s.periodic, rooted = a.bias == kDistance;
  for (int64_t j = 0; j < m; j += kWidth) {
    V square{};
    for (int64_t c = 0; c < dim; ++c) {
      const float* x = s.x + c * m;
      V d = splat(x[i]) - load(x + j);
      if (periodic) d = shorten(d, s.cell[c]);
      square = fma(d, d, square);
    }
    store(far + j, rooted ? root(square) : square);
  }
}

// Distances from the queries [begin, end) to all points, or their squares.
TGE_TARGET static void measure(const Args& a, Space& s, int64_t begin,
                               int64_t end) {
  const bool lattice = s.periodic && a.box_rows > 1;
  const auto run = a.dim == 3   ? lattice ? measure_lattice<3>
                                          : measure_plain<3>
                   : a.dim == 2 ? lattice ? measure_lattice<2>
                                          : measure_plain<2>
                   : lattice    ? measure_lattice<0>
                                : measure_plain<0>;
  for (int64_t i = begin; i < end; ++i)
    run(a, s, i, s.far + (i - begin) * s.m);
}

}  // namespace TGE_ISA
}  // namespace attention
}  // namespace tge
