// Rows of features in memory, of any of three types, and as floats.
#pragma once

#include <cstdint>
#include <cstring>

namespace tge {

enum Storage { kFloat = 0, kBfloat16 = 1, kHalf = 2 };

inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

inline float from_bfloat16(uint16_t x) {
  return float_of(static_cast<uint32_t>(x) << 16);
}

// To the nearest, ties to even; what is no number stays none.
inline uint16_t to_bfloat16(float x) {
  const uint32_t bits = bits_of(x);
  if (x != x) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float from_half(uint16_t x) {
  const uint32_t sign = (x & 0x8000u) << 16, rest = (x & 0x7fffu) << 13;
  if (rest >= 0x7c00u << 13)  // infinite or no number
    return float_of(sign | 0x7f800000u | (rest & 0x7fffffu));
  // A multiplication moves the exponent, and makes subnormal numbers normal.
  const float value = float_of(rest) * float_of((254u - 15u) << 23);
  return float_of(sign | bits_of(value));
}

inline uint16_t to_half(float x) {
  const uint32_t bits = bits_of(x);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  uint32_t rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return sign | 0x7e00;
  if (rest >= 0x477ff000u) return sign | 0x7c00;  // rounds to infinity
  if (rest < 0x38800000u) {  // subnormal: an addition rounds it
    const uint32_t sum = bits_of(float_of(rest) + 0.5f);
    return sign | static_cast<uint16_t>(sum - 0x3f000000u);
  }
  rest += 0xfffu + (rest >> 13 & 1);
  return sign | static_cast<uint16_t>((rest - (112u << 23)) >> 13);
}

// Reads `n` numbers of a row, times `scale`.
inline void load_row(const void* base, int64_t at, int64_t n, Storage type,
                     float scale, float* out) {
  if (type == kFloat) {
    const float* x = static_cast<const float*>(base) + at;
    for (int64_t i = 0; i < n; ++i) out[i] = x[i] * scale;
    return;
  }
  const uint16_t* x = static_cast<const uint16_t*>(base) + at;
  if (type == kBfloat16) {
    for (int64_t i = 0; i < n; ++i) out[i] = from_bfloat16(x[i]) * scale;
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = from_half(x[i]) * scale;
  }
}

// Writes `n` numbers that lie `step` apart, times `scale`.
inline void store_row(const float* in, int64_t step, float scale, int64_t n,
                      Storage type, void* base, int64_t at) {
  if (type == kFloat) {
    float* x = static_cast<float*>(base) + at;
    for (int64_t i = 0; i < n; ++i) x[i] = in[i * step] * scale;
    return;
  }
  uint16_t* x = static_cast<uint16_t*>(base) + at;
  for (int64_t i = 0; i < n; ++i) {
    const float y = in[i * step] * scale;
    x[i] = type == kBfloat16 ? to_bfloat16(y) : to_half(y);
  }
}

}  // namespace tge
