// Sums of some edges' activations, and rows of numbers. Included as
// `common/vector.h` is, and after it.

namespace tge {
namespace messages {
namespace TGE_ISA {

using namespace vectors::TGE_ISA;

// x = 1 / root(x * share + eps), of four
TGE_VECTOR void invert(float* x, float share, float eps) {
#if TGE_ISA_LEVEL > 0
  const __m128 y = _mm_add_ps(_mm_mul_ps(_mm_load_ps(x), _mm_set1_ps(share)),
                              _mm_set1_ps(eps));
  _mm_store_ps(x, _mm_div_ps(_mm_set1_ps(1.f), _mm_sqrt_ps(y)));
#else
  for (int i = 0; i < 4; ++i) x[i] = 1.f / std::sqrt(x[i] * share + eps);
#endif
}

// The sums of four vectors.
TGE_VECTOR void add_up(const V* x, float* out) {
#if TGE_ISA_LEVEL > 0
  __m128 part[4];
  for (int i = 0; i < 4; ++i) {
#if TGE_ISA_LEVEL == 2
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x[i]),
                                      _mm512_extractf32x8_ps(x[i], 1));
#else
    const __m256 half = x[i];
#endif
    part[i] = _mm_add_ps(_mm256_castps256_ps128(half),
                         _mm256_extractf128_ps(half, 1));
  }
  _MM_TRANSPOSE4_PS(part[0], part[1], part[2], part[3]);
  _mm_store_ps(out, _mm_add_ps(_mm_add_ps(part[0], part[1]),
                               _mm_add_ps(part[2], part[3])));
#else
  for (int i = 0; i < 4; ++i) out[i] = sum(x[i]);
#endif
}

TGE_TARGET static void clear(float* x, int64_t whole) {
  for (int64_t j = 0; j < whole; j += kWidth) store(x + j, V{});
}

TGE_TARGET static void copy(const float* from, int64_t n, float* to) {
  for (int64_t j = 0; j < n; j += kWidth)
    store(to + j, load_part(from + j, n - j));
}

}  // namespace TGE_ISA
}  // namespace messages
}  // namespace tge
