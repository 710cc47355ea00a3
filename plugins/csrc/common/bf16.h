// Tensors of float or bfloat16: vectors and single values are loaded as float and stored in the
// type of the tensor.
#pragma once

#include <string.h>

#include "vec.h"

namespace deblur {
namespace DEBLUR_TARGET {

// A bfloat16: the upper half of a float.
struct Bf16 {
  uint16_t bits;
};

DEBLUR_INLINE float to_float(float x) { return x; }
DEBLUR_INLINE float to_float(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Rounds to the nearest, ties to even; NaN stays NaN.
DEBLUR_INLINE void put(float* to, float x) { *to = x; }
DEBLUR_INLINE void put(Bf16* to, float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  const uint32_t nearest = bits + 0x7FFFu + (bits >> 16 & 1u);
  to->bits = static_cast<uint16_t>(nan ? bits >> 16 | 0x40u : nearest >> 16);
}

#if defined(__AVX512F__)

DEBLUR_INLINE Vec load(const Bf16* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
// The rounded bfloat16 in the lower half of each 32-bit lane, by whole-number arithmetic, since
// only avx512_bf16 has an instruction for it.
DEBLUR_INLINE __m512i round_to_bf16(Vec a) {
  const __m512i bits = _mm512_castps_si512(a.v), one = _mm512_set1_epi32(1);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  return _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, up, quiet), 16);
}
DEBLUR_INLINE void store(Bf16* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(round_to_bf16(a)));
}

#elif defined(__AVX2__) && defined(__FMA__)

DEBLUR_INLINE Vec load(const Bf16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
}
DEBLUR_INLINE void store(Bf16* p, Vec a) {
  // The same rounding as in put(). Packing works within 128-bit halves, so that the halves are
  // joined afterwards.
  const __m256i bits = _mm256_castps_si256(a.v), one = _mm256_set1_epi32(1);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
  const __m256i rounded = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
  const __m256i packed = _mm256_packus_epi32(rounded, rounded);
  const __m256i ordered = _mm256_permute4x64_epi64(packed, 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(ordered));
}

#else

DEBLUR_INLINE Vec load(const Bf16* p) {
  const FourBits bits = {p[0].bits, p[1].bits, p[2].bits, p[3].bits};
  return {(Four)(bits << 16)};
}
DEBLUR_INLINE void store(Bf16* p, Vec a) {
  float values[kWidth];
  store(values, a);
  for (int i = 0; i < kWidth; ++i) put(p + i, values[i]);
}

#endif

// to[i] = from[i], i < count.
template <class From, class To>
DEBLUR_INLINE void copy(const From* from, int64_t count, To* to) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store(to + i, load(from + i));
  for (; i < count; ++i) put(to + i, to_float(from[i]));
}

// to[i] = a[i] b[i], i < count.
template <class To>
DEBLUR_INLINE void multiply(const float* a, const float* b, int64_t count, To* to) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store(to + i, load(a + i) * load(b + i));
  for (; i < count; ++i) put(to + i, a[i] * b[i]);
}

// to[i] = from[i] from[i], i < count.
template <class T>
DEBLUR_INLINE void square(const T* from, int64_t count, T* to) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    const Vec value = load(from + i);
    store(to + i, value * value);
  }
  for (; i < count; ++i) put(to + i, to_float(from[i]) * to_float(from[i]));
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
