// The element types of CUDA tensors, float, half and bfloat16: the same code for the device and for
// the processor.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define DEBLUR_FN __host__ __device__ inline
#define DEBLUR_DEVICE __device__
#define DEBLUR_UNROLL _Pragma("unroll")
#define DEBLUR_UNROLL_3 _Pragma("unroll 3")  // where all at once would take too many registers
#else
#define DEBLUR_FN inline
#define DEBLUR_DEVICE
#define DEBLUR_UNROLL
#define DEBLUR_UNROLL_3
#endif

namespace deblur {

struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};
// The types that the tensor cores' functions take.
#if defined(__CUDACC__)
using NativeHalf = __half;
using NativeBfloat = __nv_bfloat16;
#else
using NativeHalf = Half;
using NativeBfloat = Bfloat;
#endif

DEBLUR_FN uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
DEBLUR_FN float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// Exact for every type.
DEBLUR_FN float to_float(float x) { return x; }
DEBLUR_FN float to_float(Bfloat x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }
DEBLUR_FN float to_float(Half x) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(x.bits));
#else
  // Infinity and NaN keep their fraction; subnormal numbers are multiples of 2^-24; for the others
  // the exponent is biased by 127 instead of 15.
  const uint32_t sign = (x.bits & 0x8000u) << 16, rest = x.bits & 0x7FFFu;
  if (rest >= 0x7C00u) return float_of(sign | 0x7F800000u | (rest & 0x3FFu) << 13);
  const float size =
      rest < 0x400u ? static_cast<float>(rest) * 0x1p-24f : float_of((rest << 13) + (112u << 23));
  return sign != 0 ? -size : size;
#endif
}

// x rounded to type T: to the nearest, ties to even; infinite beyond its range.
template <typename T>
DEBLUR_FN T from_float(float x);
template <>
DEBLUR_FN float from_float<float>(float x) {
  return x;
}
template <>
DEBLUR_FN Bfloat from_float<Bfloat>(float x) {
#if defined(__CUDA_ARCH__)
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
  const uint32_t bits = bits_of(x);
  if (x != x) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
#endif
}
template <>
DEBLUR_FN Half from_float<Half>(float x) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(x))};
#else
  // NaN; then the magnitude: what rounds to 65536 or more is infinite, numbers below 2^-14 are
  // rounded to multiples of 2^-24, the others lose 13 bits of their fraction.
  const uint16_t sign = static_cast<uint16_t>(bits_of(x) >> 16 & 0x8000u);
  if (x != x) return {static_cast<uint16_t>(sign | 0x7E00u)};
  const float size = fabsf(x);
  uint32_t bits;
  if (size >= 65520.0f) {
    bits = 0x7C00u;
  } else if (size < 0x1p-14f) {
    bits = static_cast<uint32_t>(rintf(size * 0x1p24f));
  } else {
    const uint32_t wide = bits_of(size) - (112u << 23);
    bits = (wide + 0xFFFu + (wide >> 13 & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(sign | bits)};
#endif
}

// Four neighbouring elements, aligned so that they are one load and one store. A pointer that is
// given to load4, store4 or copy4 must be aligned to 4 * sizeof(T).
template <typename T>
struct alignas(4 * sizeof(T)) Vec4 {
  T item[4];
};
template <typename T>
DEBLUR_FN Vec4<float> load4(const T* from) {
  const Vec4<T> raw = *reinterpret_cast<const Vec4<T>*>(from);
  return {to_float(raw.item[0]), to_float(raw.item[1]), to_float(raw.item[2]),
          to_float(raw.item[3])};
}
template <typename T>
DEBLUR_FN void store4(T* to, Vec4<float> x) {
  *reinterpret_cast<Vec4<T>*>(to) = {from_float<T>(x.item[0]), from_float<T>(x.item[1]),
                                     from_float<T>(x.item[2]), from_float<T>(x.item[3])};
}
template <typename T>
DEBLUR_FN void copy4(T* to, const T* from) {
  *reinterpret_cast<Vec4<T>*>(to) = *reinterpret_cast<const Vec4<T>*>(from);
}
// a * x + sum, element by element.
DEBLUR_FN Vec4<float> fma4(float a, Vec4<float> x, Vec4<float> sum) {
  DEBLUR_UNROLL
  for (int i = 0; i < 4; ++i) sum.item[i] = fmaf(a, x.item[i], sum.item[i]);
  return sum;
}
DEBLUR_FN Vec4<float> fma4(Vec4<float> a, Vec4<float> x, Vec4<float> sum) {
  DEBLUR_UNROLL
  for (int i = 0; i < 4; ++i) sum.item[i] = fmaf(a.item[i], x.item[i], sum.item[i]);
  return sum;
}

DEBLUR_FN int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
DEBLUR_FN int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
DEBLUR_FN int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
DEBLUR_FN int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

}  // namespace deblur
