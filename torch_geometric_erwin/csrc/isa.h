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
