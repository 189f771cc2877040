// What dense layers do with rows between products. Included as
// `common/vector.h` is, and after `dense/gemm.h`.

namespace tge {
namespace dense {
namespace TGE_ISA {

// to = x / root(mean(x^2) + eps) * scale. `inverse` are those of the roots.
TGE_TARGET static void normalize(const float* x, int64_t rows, int64_t width,
                                 const float* scale, float eps, float* to,
                                 int64_t ld, float* inverse) {
  for (int64_t i = 0; i < rows; ++i, x += width, to += ld) {
    V squares{}, more{};
    int64_t j = 0;
    for (; j + 2 * kWidth <= width; j += 2 * kWidth) {
      const V a = load(x + j), b = load(x + j + kWidth);
      squares = fma(a, a, squares);
      more = fma(b, b, more);
    }
    for (; j < width; j += kWidth) {
      const V a = load_part(x + j, width - j);
      squares = fma(a, a, squares);
    }
    const float mean = sum(squares + more) / static_cast<float>(width);
    inverse[i] = 1.f / std::sqrt(mean + eps);
    const V factor = splat(inverse[i]);
    for (j = 0; j < width; j += kWidth)
      store(to + j, load_part(x + j, width - j) * factor *
                        load_part(scale + j, width - j));
  }
}

// The gradient of `normalize` with respect to `x`, plus `residual`, which may
// be null. `grad` has whole vectors.
TGE_TARGET static void unnormalize(const float* x, int64_t rows,
                                   int64_t width, const float* scale,
                                   const float* inverse, Rows grad,
                                   const float* residual, float* out) {
  for (int64_t i = 0; i < rows; ++i, x += width, out += width) {
    const float* g = grad.data + i * grad.ld;
    const V factor = splat(inverse[i]);
    V dot{};
    for (int64_t j = 0; j < width; j += kWidth) {
      const int64_t n = width - j;
      const V change = load(g + j) * load_part(x + j, n) * factor;
      dot = fma(change, load_part(scale + j, n), dot);
    }
    const V mean = splat(sum(dot) / static_cast<float>(width));
    for (int64_t j = 0; j < width; j += kWidth) {
      const int64_t n = width - j;
      const V unit = load_part(x + j, n) * factor;
      V d = (load(g + j) * load_part(scale + j, n) - unit * mean) * factor;
      if (residual) d = d + load_part(residual + j, n);
      store_part(out + j, d, n);
    }
    if (residual) residual += width;
  }
}

// sums += the rows' sum
TGE_TARGET static void add_rows(Rows from, int64_t rows, int64_t width,
                                float* sums) {
  int64_t j = 0;
  for (; j + 4 * kWidth <= width; j += 4 * kWidth) {
    V all[4] = {};
    const float* x = from.data + j;
    for (int64_t i = 0; i < rows; ++i, x += from.ld)
      for (int v = 0; v < 4; ++v) all[v] = all[v] + load(x + v * kWidth);
    for (int v = 0; v < 4; ++v)
      store(sums + j + v * kWidth, load(sums + j + v * kWidth) + all[v]);
  }
  for (; j < width; j += kWidth) {
    const int64_t n = width - j;
    V all{};
    for (int64_t i = 0; i < rows; ++i)
      all = all + load_part(from.data + i * from.ld + j, n);
    store_part(sums + j, load_part(sums + j, n) + all, n);
  }
}

// sums += inverse * left * right, added up over rows
TGE_TARGET static void add_scales(const Total& t, int64_t rows) {
  for (int64_t j = 0; j < t.width; j += kWidth) {
    const int64_t n = t.width - j;
    const float *x = t.left.data + j, *y = t.right.data + j;
    V all{};
    for (int64_t i = 0; i < rows; ++i, x += t.left.ld, y += t.right.ld)
      all = fma(load_part(x, n) * load_part(y, n), splat(t.inverse[i]), all);
    store_part(t.sums + j, load_part(t.sums + j, n) + all, n);
  }
}

// sums += right^T left, for few columns of `left`. Of `right` there are whole
// vectors, in fours.
TGE_TARGET static void add_turned(const Total& t, int64_t rows) {
  alignas(64) float turned[4 * kWidth];
  for (int64_t j = 0; j < t.width; j += 4 * kWidth)
    for (int64_t d = 0; d < t.height; ++d) {
      V all[4] = {};
      const float *x = t.left.data + d, *y = t.right.data + j;
      for (int64_t i = 0; i < rows; ++i, x += t.left.ld, y += t.right.ld)
        for (int v = 0; v < 4; ++v)
          all[v] = fma(load(y + v * kWidth), splat(*x), all[v]);
      for (int v = 0; v < 4; ++v) store(turned + v * kWidth, all[v]);
      const int64_t end = std::min<int64_t>(t.width - j, 4 * kWidth);
      for (int64_t c = 0; c < end; ++c)
        t.sums[(j + c) * t.height + d] += turned[c];
    }
}
TGE_TARGET static void add_some(const Total& t, int64_t rows, bool fresh,
                                float* space) {
  if (t.kind == kProduct) accumulate_product(t, rows, fresh, space);
  if (t.kind == kScales) add_scales(t, rows);
  if (t.kind == kTurned) add_turned(t, rows);
  if (!t.bias) return;
  t.kind == kTurned ? add_rows(t.right, rows, t.width, t.bias)
                    : add_rows(t.left, rows, t.height, t.bias);
}

// Groups have multiples of `kDepth` rows: how many makes no difference.
static void accumulate(Total t, int64_t rows, bool fresh, float* space) {
  if (fresh && t.kind != kProduct)
    std::fill_n(t.sums, t.height * t.width, 0.f);
  if (fresh && t.bias)
    std::fill_n(t.bias, t.kind == kTurned ? t.width : t.height, 0.f);
  for (int64_t left = rows; left == rows || left > 0; left -= kDepth) {
    const int64_t depth = std::min(kDepth, left);
    add_some(t, depth, fresh && left == rows, space);
    t.left.data += depth * t.left.ld;
    t.right.data += depth * t.right.ld;
    if (t.inverse) t.inverse += depth;
  }
}

// As many totals as there are `kHeight` columns of `left`.
static void add(std::vector<Total>& totals, Rows left, int64_t height,
                Rows right, int64_t width, float* sums, int64_t ld,
                float* bias) {
  for (int64_t i = 0; i < height; i += kHeight)
    totals.push_back({kProduct, {left.data + i, left.ld}, right,
                      std::min(kHeight, height - i), width, sums + i * ld, ld,
                      bias ? bias + i : nullptr, nullptr});
}

// 1 / (1 + exp(-x)), zero below -87.5
TGE_VECTOR V sigmoid(V x) {
  const float kLog2e = 1.44269504088896341f;
  const V least = splat(-88.f), most = splat(90.f), one = splat(1.f);
  V size = choose(most, x, most, x);
  size = choose(size, least, least, size);
  const V power = size * splat(-kLog2e);
  const V lost = fma(size, splat(kLog2e), power);  // by rounding
  const V rough = exp2(power);
  const V e = fma(rough, lost * splat(-0.69314718f), rough);
  const V infinite = splat(std::numeric_limits<float>::infinity());
  return one / (one + choose(x, splat(-87.5f), infinite, e));
}

}  // namespace TGE_ISA
}  // namespace dense
}  // namespace tge
