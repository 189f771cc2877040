// What code that is compiled once for each instruction set needs.
#pragma once

#if defined(_MSC_VER)
#define TGE_INLINE __forceinline
#define TGE_PREFETCH(address) (void)(address)
#else
#define TGE_INLINE inline __attribute__((always_inline))
#define TGE_PREFETCH(address) __builtin_prefetch(address)
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define TGE_MORE_ISAS
#elif defined(__aarch64__) && defined(__GNUC__)
#include <arm_neon.h>
#endif

#if defined(TGE_MORE_ISAS)
// How wide vectors may be: 0 for what every machine has, 1 for AVX2, 2 for
// AVX-512, but not more than `most`.
inline int isa_level(int most) {
  const bool has_avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 =
      has_avx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const int level = has_avx512 ? 2 : has_avx2 ? 1 : 0;
  return level < most ? level : most;
}
#endif
