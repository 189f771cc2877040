// Vectors of floats for kernels. Included once for each
// instruction set, between definitions of TGE_ISA (its namespace),
// TGE_ISA_LEVEL and TGE_TARGET; hence no include guard.
//
// Only what compilers do not do for vectors by themselves is spelled out. In
// particular they may not fuse multiplications and additions here.

namespace tge {
namespace vectors {
namespace TGE_ISA {

#if TGE_ISA_LEVEL == 2
constexpr int kWidth = 16;
constexpr int kTile = 8;  // rows whose sums fit in registers
#elif TGE_ISA_LEVEL == 1
constexpr int kWidth = 8;
constexpr int kTile = 4;
#else
constexpr int kWidth = 4;
#if defined(__aarch64__)
constexpr int kTile = 8;
#else
constexpr int kTile = 4;
#endif
#endif

#define TGE_VECTOR TGE_TARGET static TGE_INLINE

#if defined(__GNUC__)
typedef float V __attribute__((vector_size(4 * kWidth)));
typedef uint32_t I __attribute__((vector_size(4 * kWidth)));

#if TGE_ISA_LEVEL == 2
TGE_VECTOR V splat(float x) { return _mm512_set1_ps(x); }
#elif TGE_ISA_LEVEL == 1
TGE_VECTOR V splat(float x) { return _mm256_set1_ps(x); }
#else
TGE_VECTOR V splat(float x) { return V{x, x, x, x}; }
#endif
// Where `a < b` is true: `x`; elsewhere, also where it is unordered: `y`.
TGE_VECTOR V choose(V a, V b, V x, V y) { return a < b ? x : y; }
TGE_VECTOR V shifted(V x) {
  return (V)(((I)x << 23) + 0x3f800000u);
}
#else
struct V {
  float x[kWidth];
};
#define TGE_OPERATOR(op)                                               \
  TGE_VECTOR V operator op(V a, V b) {                                 \
    for (int i = 0; i < kWidth; ++i) a.x[i] = a.x[i] op b.x[i];        \
    return a;                                                          \
  }                                                                    \
  TGE_VECTOR V operator op(V a, float b) {                             \
    for (int i = 0; i < kWidth; ++i) a.x[i] = a.x[i] op b;             \
    return a;                                                          \
  }
TGE_OPERATOR(+)
TGE_OPERATOR(-)
TGE_OPERATOR(*)
TGE_OPERATOR(/)
#undef TGE_OPERATOR
TGE_VECTOR V splat(float x) { return V{{x, x, x, x}}; }
TGE_VECTOR V choose(V a, V b, V x, V y) {
  for (int i = 0; i < kWidth; ++i) a.x[i] = a.x[i] < b.x[i] ? x.x[i] : y.x[i];
  return a;
}
TGE_VECTOR V shifted(V x) {
  for (int i = 0; i < kWidth; ++i)
    x.x[i] = float_of((bits_of(x.x[i]) << 23) + 0x3f800000u);
  return x;
}
#endif

TGE_VECTOR V load(const float* x) {
  V v;
  std::memcpy(&v, x, sizeof(V));
  return v;
}

TGE_VECTOR void store(float* x, V v) { std::memcpy(x, &v, sizeof(V)); }

// The first `n` numbers, at most a vector; zeros behind them.
#if TGE_ISA_LEVEL == 2
TGE_VECTOR __mmask16 lanes(int64_t n) {
  return static_cast<__mmask16>((1u << std::min<int64_t>(n, 16)) - 1);
}
TGE_VECTOR V load_part(const float* x, int64_t n) {
  return _mm512_maskz_loadu_ps(lanes(n), x);
}
TGE_VECTOR void store_part(float* x, V v, int64_t n) {
  _mm512_mask_storeu_ps(x, lanes(n), v);
}
#else
TGE_VECTOR V load_part(const float* x, int64_t n) {
  if (n >= kWidth) return load(x);
  float part[kWidth] = {};
  for (int64_t i = 0; i < n; ++i) part[i] = x[i];
  return load(part);
}
TGE_VECTOR void store_part(float* x, V v, int64_t n) {
  if (n >= kWidth) return store(x, v);
  float part[kWidth];
  store(part, v);
  for (int64_t i = 0; i < n; ++i) x[i] = part[i];
}
#endif

TGE_VECTOR V absolute(V x) {
#if defined(__GNUC__)
  return (V)((I)x & 0x7fffffffu);
#else
  for (int i = 0; i < kWidth; ++i) x.x[i] = std::fabs(x.x[i]);
  return x;
#endif
}

TGE_VECTOR V largest(V a, V b) { return choose(a, b, b, a); }

#if TGE_ISA_LEVEL == 2
TGE_VECTOR V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
TGE_VECTOR V root(V x) { return _mm512_sqrt_ps(x); }
TGE_VECTOR V rounded(V x) { return _mm512_roundscale_ps(x, 8); }
TGE_VECTOR float sum(V x) { return _mm512_reduce_add_ps(x); }
TGE_VECTOR float top(V x) { return _mm512_reduce_max_ps(x); }
#else
#if TGE_ISA_LEVEL == 1
TGE_VECTOR V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
TGE_VECTOR V root(V x) { return _mm256_sqrt_ps(x); }
TGE_VECTOR V rounded(V x) { return _mm256_round_ps(x, 8); }
#else
#if defined(__aarch64__) && defined(__GNUC__)
TGE_VECTOR V fma(V a, V b, V c) {
  return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
#else
TGE_VECTOR V fma(V a, V b, V c) { return a * b + c; }
#endif
#if defined(__SSE2__) && defined(TGE_MORE_ISAS)
TGE_VECTOR V root(V x) { return _mm_sqrt_ps(x); }
#else
TGE_VECTOR V root(V x) {
  float a[kWidth];
  store(a, x);
  for (int i = 0; i < kWidth; ++i) a[i] = std::sqrt(a[i]);
  return load(a);
}
#endif
TGE_VECTOR V rounded(V x) {
  float a[kWidth];
  store(a, x);
  for (int i = 0; i < kWidth; ++i) a[i] = std::nearbyint(a[i]);
  return load(a);
}
#endif
TGE_VECTOR float sum(V x) {
  float a[kWidth];
  store(a, x);
  for (int n = kWidth / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) a[i] += a[i + n];
  return a[0];
}
TGE_VECTOR float top(V x) {
  float a[kWidth];
  store(a, x);
  for (int n = kWidth / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) a[i] = a[i] < a[i + n] ? a[i + n] : a[i];
  return a[0];
}
#endif

// 2 to the power of x, for x up to 127, within 2 units in the last place;
// zero where it would be subnormal. The polynomial is that of Chebyshev nodes
// in [-1/2, 1/2].
TGE_VECTOR V exp2(V x) {
  const float kShift = 12582912.f;  // 1.5 * 2^23: rounds to integers
  const V n = x + splat(kShift);
  const V f = x - (n - splat(kShift));
  V p = splat(1.546973197769834e-4f);
  p = fma(p, f, splat(1.340043216521330e-3f));
  p = fma(p, f, splat(9.618025602955571e-3f));
  p = fma(p, f, splat(5.550327214209697e-2f));
  p = fma(p, f, splat(2.402265121359517e-1f));
  p = fma(p, f, splat(6.931472067106202e-1f));
  p = fma(p, f, splat(1.f));
  return choose(x, splat(-126.f), V{}, p * shifted(n));
}

}  // namespace TGE_ISA
}  // namespace vectors
}  // namespace tge
