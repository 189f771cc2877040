// The products of attention within one ball, a tile of queries and keys at a
// time, whose sums stay in registers. Included as `common/vector.h` is.

namespace tge {
namespace attention {
namespace TGE_ISA {

// sums[i][j] += sum_c left[c][i] * right[c][j], for a panel.
template <int J>
TGE_VECTOR void multiply(const float* left, const float* right, int64_t width,
                         V (&sums)[kTile][J]) {
#pragma GCC unroll 4
  for (int64_t c = 0; c < width; ++c) {
    V x[J];
    for (int j = 0; j < J; ++j) x[j] = load(right + (c * J + j) * kWidth);
    for (int i = 0; i < kTile; ++i) {
      const V y = splat(left[c * kTile + i]);
      for (int j = 0; j < J; ++j) sums[i][j] = fma(x[j], y, sums[i][j]);
    }
  }
}

// Where a strip keeps the row i of the panel from j0 on.
template <int J>
TGE_VECTOR int64_t place(int64_t i, int64_t j0) {
  return j0 * kStrip + i * J * kWidth;
}

struct Strip {
  const float *q, *g, *kt, *vt;  // of the head, the rows of the first query
  const float *lse, *delta;
  float *far, *pull;
  float slope;  // to base 2
  bool first;   // head of the block: `pull` starts here
};

// The scores of a tile, to base 2.
template <int J>
TGE_VECTOR void tile_scores(const Args& a, const Space& s, const Strip& t,
                            int64_t i0, int64_t j0, V (&sums)[kTile][J]) {
  for (int j = 0; j < J; ++j) {
    const V hide = load(s.hide + j0 + j * kWidth);
    for (int i = 0; i < kTile; ++i)
      sums[i][j] =
          a.bias == kNone
              ? hide
              : fma(splat(t.slope),
                    load(t.far + (i0 + i) * s.m + j0 + j * kWidth), hide);
  }
  multiply<J>(t.q + i0 * a.width, t.kt + j0 * a.width, a.width, sums);
}

template <int J>
TGE_VECTOR void tile_forward(const Args& a, const Space& s, const Strip& t,
                             int64_t i0, int64_t j0) {
  V sums[kTile][J];
  tile_scores<J>(a, s, t, i0, j0, sums);
  for (int i = 0; i < kTile; ++i)
    for (int j = 0; j < J; ++j)
      store(s.score + place<J>(i0 + i, j0) + j * kWidth, sums[i][j]);
}

// Weights into `score`, the gradients of scores into `change`.
template <int J>
TGE_VECTOR void tile_backward(const Args& a, const Space& s, const Strip& t,
                              int64_t i0, int64_t j0, V& steep) {
  V sums[kTile][J];
  tile_scores<J>(a, s, t, i0, j0, sums);
  for (int i = 0; i < kTile; ++i)
    for (int j = 0; j < J; ++j)
      store(s.score + place<J>(i0 + i, j0) + j * kWidth,
            exp2(sums[i][j] - splat(t.lse[i0 + i])));
  for (int i = 0; i < kTile; ++i)
    for (int j = 0; j < J; ++j) sums[i][j] = splat(-t.delta[i0 + i]);
  multiply<J>(t.g + i0 * a.width, t.vt + j0 * a.width, a.width, sums);
  for (int i = 0; i < kTile; ++i)
    for (int j = 0; j < J; ++j) {
      const int64_t here = place<J>(i0 + i, j0) + j * kWidth;
      const int64_t at = (i0 + i) * s.m + j0 + j * kWidth;
      const V change = sums[i][j] * load(s.score + here);
      store(s.change + here, change);
      if (a.bias == kNone) continue;
      steep = fma(change, load(t.far + at), steep);
      if (!a.d_pos) continue;
      const V pull = t.first ? V{} : load(t.pull + at);
      store(t.pull + at, fma(change, splat(t.slope), pull));
    }
}

// sums[i][c] += sum_j weights[i][j] * values[j][c], for a panel of weights of
// which `size` points exist, and C vectors of a row.
template <int J, int C>
TGE_VECTOR void accumulate(const float* weights, const float* values,
                           int64_t size, int64_t stride, V (&sums)[kTile][C]) {
#pragma GCC unroll 4
  for (int64_t j = 0; j < size; ++j) {
    V x[C];
    for (int c = 0; c < C; ++c) x[c] = load(values + j * stride + c * kWidth);
    for (int i = 0; i < kTile; ++i) {
      const V y = splat(weights[i * J * kWidth + j]);
      for (int c = 0; c < C; ++c) sums[i][c] = fma(x[c], y, sums[i][c]);
    }
  }
}

template <int C>
TGE_VECTOR void tile_rows(const Space& s, const float* weights, int64_t i0,
                          const float* values, int64_t size, float* rows) {
  V sums[kTile][C] = {};
  int64_t j = 0;
  for (; j + kPanel <= s.m; j += kPanel)
    accumulate<2, C>(weights + place<2>(i0, j), values + j * s.e,
                     std::min(kPanel, size - j), s.e, sums);
  if (j < s.m)
    accumulate<1, C>(weights + place<1>(i0, j), values + j * s.e, size - j,
                     s.e, sums);
  for (int i = 0; i < kTile; ++i)
    for (int c = 0; c < C; ++c)
      store(rows + (i0 + i) * s.e + c * kWidth, sums[i][c]);
}

// s.rows = weights * values, for a strip.
TGE_TARGET static void multiply_rows(const Space& s, const float* weights,
                                     const float* values, int64_t size) {
  for (int64_t i = 0; i < kStrip; i += kTile) {
    int64_t c = 0;
    for (; c + 2 * kWidth <= s.e; c += 2 * kWidth)
      tile_rows<2>(s, weights, i, values + c, size, s.rows + c);
    if (c < s.e) tile_rows<1>(s, weights, i, values + c, size, s.rows + c);
  }
}

// out[c][j] += sum_i weights[i][j] * rows[c][i], for a panel.
template <int J>
TGE_VECTOR void tile_update(const float* weights, const float* rows,
                            int64_t width, float* out) {
  V x[kTile][J];
  for (int i = 0; i < kTile; ++i)
    for (int j = 0; j < J; ++j) x[i][j] = load(weights + (i * J + j) * kWidth);
#pragma GCC unroll 4
  for (int64_t c = 0; c < width; ++c) {
    V sums[J];
    for (int j = 0; j < J; ++j) sums[j] = load(out + (c * J + j) * kWidth);
    for (int i = 0; i < kTile; ++i) {
      const V y = splat(rows[c * kTile + i]);
      for (int j = 0; j < J; ++j) sums[j] = fma(x[i][j], y, sums[j]);
    }
    for (int j = 0; j < J; ++j) store(out + (c * J + j) * kWidth, sums[j]);
  }
}

TGE_TARGET static void update(const Space& s, const float* weights,
                              const float* rows, int64_t width, float* out) {
  for (int64_t i = 0; i < kStrip; i += kTile) {
    int64_t j = 0;
    for (; j + kPanel <= s.m; j += kPanel)
      tile_update<2>(weights + place<2>(i, j), rows + i * width, width,
                     out + j * width);
    if (j < s.m)
      tile_update<1>(weights + place<1>(i, j), rows + i * width, width,
                     out + j * width);
  }
}

// Turns a strip's scores into weights that are yet to be divided by `total`.
TGE_TARGET static void normalize(const Space& s, float* most, float* total) {
  const int64_t whole = s.m / kPanel * kPanel;
  for (int64_t i = 0; i < kStrip; ++i) {
    float* first = s.score + place<2>(i, 0);
    float* last = whole < s.m ? s.score + place<1>(i, whole) : nullptr;
    V high = load(last ? last : first), other = high;
    for (int64_t j = 0; j < whole; j += kPanel) {
      high = largest(load(first + j * kStrip), high);
      other = largest(load(first + j * kStrip + kWidth), other);
    }
    most[i] = top(largest(other, high));
    const V shift = splat(most[i]);
    V all{};
    for (int64_t j = 0; j < whole; j += kPanel)
      for (int64_t k = 0; k < kPanel; k += kWidth) {
        const V weight = exp2(load(first + j * kStrip + k) - shift);
        store(first + j * kStrip + k, weight);
        all = all + weight;
      }
    if (last) {
      const V weight = exp2(load(last) - shift);
      store(last, weight);
      all = all + weight;
    }
    total[i] = sum(all);
  }
}

}  // namespace TGE_ISA
}  // namespace attention
}  // namespace tge
