// Products of matrices. Included as `common/vector.h` is, and after it.
//
// Each number is summed up in the order of the inner dimension, one fused
// multiplication at a time, wherever it lies: a row's result does not depend
// on the rows around it.

namespace tge {
namespace dense {
namespace TGE_ISA {

using namespace vectors::TGE_ISA;

// Sums of so many rows and two vectors fit in registers.
#if TGE_ISA_LEVEL == 2
constexpr int kTall = 14;
#elif defined(__aarch64__)
constexpr int kTall = 12;
#else
constexpr int kTall = 6;
#endif
constexpr int64_t kPanel = 2 * kWidth;

alignas(64) static const float kZeros[kPanel] = {};

static int64_t round_up(int64_t n, int64_t step) {
  return (n + step - 1) / step * step;
}

// Where rows lie in scratch memory: not at powers of two, which would share
// few sets of the cache.
static int64_t stride(int64_t n) {
  const int64_t whole = round_up(n, 16);
  return whole % 64 == 0 ? whole + 16 : whole;
}

// c = from + a b + plus, of one tile. Strides may be zero, `plus` null.
struct Product {
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb, depth;
  const float* from;
  int64_t ldf;
  const float* plus;
  int64_t ldp;
  float* c;
  int64_t ldc;
};

// kAcross: `a` is transposed, a row after the other of the inner dimension,
// in groups as `pack_columns` makes them.
// The sums are K = i * J + j; written out, they never leave their registers.
template <int J, bool kAcross, size_t... K>
TGE_VECTOR void multiply_sums(const Product& p, std::index_sequence<K...>) {
  V sums[sizeof...(K)] = {
      load(p.from + K / J * p.ldf + K % J * kWidth)...};
  const float *a = p.a, *b = p.b;
  const int64_t lda = p.lda, ldb = p.ldb;
#pragma GCC unroll 4  // else decoding instructions takes longest
  for (int64_t k = 0; k < p.depth; ++k) {
    const V x[2] = {load(b), load(b + (J - 1) * kWidth)};
    ((sums[K] = fma(x[K % J], splat(kAcross ? a[K / J] : a[K / J * lda]),
                    sums[K])),
     ...);
    a += kAcross ? lda : 1;
    b += ldb;
  }
  if (p.plus)
    ((sums[K] = sums[K] + load(p.plus + K / J * p.ldp + K % J * kWidth)),
     ...);
  (store(p.c + K / J * p.ldc + K % J * kWidth, sums[K]), ...);
}

template <int I, int J, bool kAcross>
TGE_TARGET static void multiply_tile(const Product& p) {
  multiply_sums<J, kAcross>(p, std::make_index_sequence<I * J>());
}

struct Tiles {
  void (*of[kTall])(const Product&);
};

template <int J, bool kAcross, size_t... I>
constexpr Tiles list_tiles(std::index_sequence<I...>) {
  return {{multiply_tile<static_cast<int>(I) + 1, J, kAcross>...}};
}

template <int J, bool kAcross>
constexpr Tiles kTiles =
    list_tiles<J, kAcross>(std::make_index_sequence<kTall>());

// A tile of fewer columns than its vectors have is worked on elsewhere.
TGE_TARGET static void multiply_edge(const Product& p,
                                     void (*tile)(const Product&),
                                     int64_t rows, int64_t columns) {
  alignas(64) float from[kTall * kPanel], plus[kTall * kPanel];
  alignas(64) float c[kTall * kPanel];
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; j += kWidth) {
      const int64_t at = i * kPanel + j, n = columns - j;
      store(from + at, load_part(p.from + i * p.ldf + j, n));
      if (p.plus) store(plus + at, load_part(p.plus + i * p.ldp + j, n));
    }
  Product inside = p;
  inside.from = from;
  inside.plus = p.plus ? plus : nullptr;
  inside.c = c;
  inside.ldf = inside.ldp = inside.ldc = kPanel;
  tile(inside);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; j += kWidth)
      store_part(p.c + i * p.ldc + j, load(c + i * kPanel + j), columns - j);
}

// Rows divided evenly among tiles, the taller ones first. A division for
// each tile would take as long as some of its products.
struct Groups {
  int64_t count, size, taller;

  explicit Groups(int64_t rows)
      : count((rows + kTall - 1) / kTall),
        size(count ? rows / count : 0),
        taller(rows - count * size) {}

  int64_t rows(int64_t group) const { return size + (group < taller); }
};

// A panel's worth of columns of any number of rows.
template <bool kAcross>
static void multiply_panel(Product p, int64_t rows, int64_t columns) {
  const int64_t vectors = columns > kWidth ? 2 : 1;
  const Tiles& tiles = vectors == 2 ? kTiles<2, kAcross> : kTiles<1, kAcross>;
  const Product first = p;
  const Groups groups(rows);
  int64_t i = 0;
  for (int64_t g = 0; g < groups.count; i += groups.rows(g++)) {
    const int64_t size = groups.rows(g);
    p.a = first.a + (kAcross ? g * kTall * p.depth : i * p.lda);
    p.from = first.from + i * p.ldf;
    p.plus = first.plus ? first.plus + i * p.ldp : nullptr;
    p.c = first.c + i * p.ldc;
    const auto tile = tiles.of[size - 1];
    columns == vectors * kWidth ? tile(p)
                                : multiply_edge(p, tile, size, columns);
  }
}

// c = from + a b + plus with `depth` columns of `a`, and of `b` the rows from
// `row` and `width` columns from `column`, at which a panel starts.
static void multiply(Rows a, int64_t rows, const Panels& b,
                     const float* packed, int64_t row, int64_t depth,
                     int64_t column, int64_t width, Rows from, Rows plus,
                     float* c, int64_t ldc) {
  const int64_t whole = round_up(b.width, kWidth);
  const int64_t steps = std::max<int64_t>((depth + kDepth - 1) / kDepth, 1);
  for (int64_t s = 0; s < steps; ++s) {
    const int64_t k = depth * s / steps, end = depth * (s + 1) / steps;
    const bool last = s + 1 == steps;
    for (int64_t j = 0; j < width; j += kPanel) {
      const int64_t at = column + j, ldb = std::min(kPanel, whole - at);
      Product p{};
      p.a = a.data + k;
      p.lda = a.ld;
      p.b = packed + b.at + at * b.depth + (row + k) * ldb;
      p.ldb = ldb;
      p.depth = end - k;
      p.from = s ? c + j : from.data + (from.ld < 0 ? 0 : j);
      p.ldf = s ? ldc : std::max<int64_t>(from.ld, 0);
      p.plus = last && plus.data ? plus.data + j : nullptr;
      p.ldp = plus.ld;
      p.c = c + j;
      p.ldc = ldc;
      multiply_panel<false>(p, rows, std::min(kPanel, width - j));
    }
  }
}

// Zeros, for all columns.
static Rows zeros() { return {kZeros, -1}; }

constexpr int64_t kHeight = 128;  // of a total, at most

// Floats that `accumulate` works on.
static int64_t accumulating() {
  const int64_t groups = (kHeight + kTall - 1) / kTall;
  return kDepth * (kPanel + groups * kTall);
}

// The groups of columns that `multiply_panel` makes, each by itself, a few
// rows at a time, which the cache holds meanwhile.
TGE_TARGET static void pack_columns(Rows from, int64_t depth, int64_t width,
                                    float* to) {
  const Groups groups(width);
  for (int64_t begin = 0; begin < depth; begin += 16) {
    const int64_t end = std::min(begin + 16, depth);
    int64_t j = 0;
    for (int64_t g = 0; g < groups.count; j += groups.rows(g++)) {
      const int64_t size = std::min<int64_t>(kTall, width - j);
      const float* x = from.data + begin * from.ld + j;
      float* y = to + (g * depth + begin) * kTall;
      for (int64_t k = begin; k < end; ++k, x += from.ld, y += kTall)
        size == kTall ? std::memcpy(y, x, kTall * sizeof(float))
                      : std::memcpy(y, x, size * sizeof(float));
    }
  }
}

// A panel's columns; those past the last are zero.
TGE_TARGET static void pack_panel(Rows from, int64_t depth, int64_t width,
                                  float* to) {
  const float* x = from.data;
  for (int64_t k = 0; k < depth; ++k, x += from.ld) {
    TGE_PREFETCH(x + 16 * from.ld);
    for (int64_t j = 0; j < width; j += kWidth, to += kWidth)
      store(to, load_part(x + j, width - j));
  }
}

// sums += left^T right, of at most `kDepth` rows. What is added is summed up
// by itself first: many rows are not added one by one to a large number.
static void accumulate_product(const Total& t, int64_t rows, bool fresh,
                               float* space) {
  float* const columns = space + kDepth * kPanel;
  pack_columns(t.left, rows, t.height, columns);
  for (int64_t j = 0; j < t.width; j += kPanel) {
    const int64_t width = std::min(kPanel, t.width - j);
    pack_panel({t.right.data + j, t.right.ld}, rows, width, space);
    Product p{};
    p.a = columns;
    p.lda = kTall;
    p.b = space;
    p.ldb = round_up(width, kWidth);
    p.depth = rows;
    p.from = kZeros;
    p.plus = fresh ? nullptr : t.sums + j;
    p.ldp = t.ld;
    p.c = t.sums + j;
    p.ldc = t.ld;
    multiply_panel<true>(p, t.height, width);
  }
}

// to[j][i] = from[i][j], for four rows and columns
TGE_TARGET static void turn_four(const float* from, int64_t ld, float* to,
                                 int64_t step) {
#if defined(TGE_MORE_ISAS)
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + ld);
  __m128 c = _mm_loadu_ps(from + 2 * ld), d = _mm_loadu_ps(from + 3 * ld);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + step, b);
  _mm_storeu_ps(to + 2 * step, c);
  _mm_storeu_ps(to + 3 * step, d);
#else
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) to[j * step + i] = from[i * ld + j];
#endif
}

// One panel; columns past the last are zero.
TGE_TARGET static void pack(const Panels& b, int64_t panel, float* packed) {
  const int64_t at = panel * kPanel;
  const int64_t size = std::min(kPanel, b.width - at);
  const int64_t step = round_up(size, kWidth);
  float* to = packed + b.at + at * b.depth;
  if (!b.across)
    return pack_panel({b.from + at, b.ld}, b.depth, size, to);
  const float* from = b.from + at * b.ld;
  const int64_t wide = size / 4 * 4, deep = b.depth / 4 * 4;
  for (int64_t k = 0; k < deep; k += 4)
    for (int64_t j = 0; j < wide; j += 4)
      turn_four(from + j * b.ld + k, b.ld, to + k * step + j, step);
  for (int64_t k = 0; k < b.depth; ++k) {
    for (int64_t j = k < deep ? wide : 0; j < size; ++j)
      to[k * step + j] = from[j * b.ld + k];
    for (int64_t j = size; j < step; ++j) to[k * step + j] = 0.f;
  }
}

// Adds a matrix to what is to be packed.
static void add(Plan& plan, const float* from, int64_t ld, int64_t depth,
                int64_t width, bool across) {
  plan.panels[plan.count++] = {from, ld, depth, width, across, plan.packed};
  plan.packed += round_up(depth * round_up(width, kWidth), 16);
}

}  // namespace TGE_ISA
}  // namespace dense
}  // namespace tge
