// Packs what is near, for one instruction set; hence no include guard.

namespace tge {
namespace neighbors {
namespace TGE_ISA {

// Appends the distances of a block that are at most `bound`, and their places
// counted from `slot` on, in order. Returns how many there are; writes to up
// to `kLanes` elements.
#if TGE_ISA_LEVEL == 2

TGE_FAST int64_t pack(const float* d, float bound, int64_t slot, float* dist,
                      int32_t* to) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
                                         12, 13, 14, 15);
  const __m512i place = _mm512_add_epi32(lane, _mm512_set1_epi32(int(slot)));
  const __m512 x = _mm512_loadu_ps(d);
  const __mmask16 near =
      _mm512_cmp_ps_mask(x, _mm512_set1_ps(bound), _CMP_LE_OQ);
  _mm512_storeu_ps(dist, _mm512_maskz_compress_ps(near, x));
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(near, place));
  return __builtin_popcount(near);
}

TGE_FAST int64_t pack(const double* d, double bound, int64_t slot,
                      double* dist, int64_t* to) {
  const __m512i lane = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
  int64_t n = 0;
  for (int i = 0; i < kLanes; i += 8) {
    const __m512i place = _mm512_add_epi64(lane, _mm512_set1_epi64(slot + i));
    const __m512d x = _mm512_loadu_pd(d + i);
    const __mmask8 near =
        _mm512_cmp_pd_mask(x, _mm512_set1_pd(bound), _CMP_LE_OQ);
    _mm512_storeu_pd(dist + n, _mm512_maskz_compress_pd(near, x));
    _mm512_storeu_si512(to + n, _mm512_maskz_compress_epi64(near, place));
    n += __builtin_popcount(near);
  }
  return n;
}

#elif TGE_ISA_LEVEL == 1

TGE_FAST int64_t pack(const float* d, float bound, int64_t slot, float* dist,
                      int32_t* to) {
  int64_t n = 0;
  for (int i = 0; i < kLanes; i += 8) {
    const __m256 x = _mm256_loadu_ps(d + i);
    const int near = _mm256_movemask_ps(
        _mm256_cmp_ps(x, _mm256_set1_ps(bound), _CMP_LE_OQ));
    const __m256i lane = _mm256_cvtepu8_epi32(_mm_loadl_epi64(
        reinterpret_cast<const __m128i*>(kSetBits.lanes[near])));
    _mm256_storeu_ps(dist + n, _mm256_permutevar8x32_ps(x, lane));
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(to + n),
        _mm256_add_epi32(lane, _mm256_set1_epi32(int(slot) + i)));
    n += __builtin_popcount(near);
  }
  return n;
}

TGE_FAST int64_t pack(const double* d, double bound, int64_t slot,
                      double* dist, int64_t* to) {
  int64_t n = 0;
  for (int i = 0; i < kLanes; i += 4) {
    const __m256d x = _mm256_loadu_pd(d + i);
    const int near = _mm256_movemask_pd(
        _mm256_cmp_pd(x, _mm256_set1_pd(bound), _CMP_LE_OQ));
    const __m256i lane = _mm256_cvtepu8_epi64(_mm_loadl_epi64(
        reinterpret_cast<const __m128i*>(kSetBits.lanes[near])));
    const __m256i low = _mm256_shuffle_epi32(
        _mm256_slli_epi64(lane, 1), _MM_SHUFFLE(2, 2, 0, 0));
    const __m256i half = _mm256_add_epi32(
        low, _mm256_setr_epi32(0, 1, 0, 1, 0, 1, 0, 1));
    _mm256_storeu_ps(
        reinterpret_cast<float*>(dist + n),
        _mm256_permutevar8x32_ps(_mm256_castpd_ps(x), half));
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(to + n),
        _mm256_add_epi64(lane, _mm256_set1_epi64x(slot + i)));
    n += __builtin_popcount(near);
  }
  return n;
}

#else

template <class T>
TGE_FAST int64_t pack(const T* d, T bound, int64_t slot, T* dist, Id<T>* to) {
  int64_t n = 0;
  for (int j = 0; j < kLanes; ++j) {  // without a branch
    dist[n] = d[j];
    to[n] = static_cast<Id<T>>(slot + j);
    n += d[j] <= bound;
  }
  return n;
}

#endif

}  // namespace TGE_ISA
}  // namespace neighbors
}  // namespace tge
