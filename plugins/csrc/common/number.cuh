// What tensors hold: float, half and bfloat16, on the device and on the processor alike.
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
// As the tensor cores know them.
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

DEBLUR_FN float number(float x) { return x; }
DEBLUR_FN float number(Bfloat x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }
DEBLUR_FN float number(Half x) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(x.bits));
#else
  const uint32_t sign = (x.bits & 0x8000u) << 16, rest = x.bits & 0x7FFFu;
  if (rest >= 0x7C00u) return float_of(sign | 0x7F800000u | (rest & 0x3FFu) << 13);
  const float size = rest < 0x400u ? static_cast<float>(rest) * 0x1p-24f
                                   : float_of((rest << 13) + (112u << 23));
  return sign != 0 ? -size : size;
#endif
}

// The nearest number of type T, the even one of two; beyond its range infinite.
template <typename T>
DEBLUR_FN T rounded(float x);
template <>
DEBLUR_FN float rounded<float>(float x) {
  return x;
}
template <>
DEBLUR_FN Bfloat rounded<Bfloat>(float x) {
#if defined(__CUDA_ARCH__)
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
  const uint32_t bits = bits_of(x);
  if (x != x) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
#endif
}
template <>
DEBLUR_FN Half rounded<Half>(float x) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(x))};
#else
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

// Four neighbours, aligned so that they are one load and one store.
template <typename T>
struct alignas(4 * sizeof(T)) Four {
  T item[4];
};
template <typename T>
DEBLUR_FN Four<float> load_four(const T* from) {
  const Four<T> raw = *reinterpret_cast<const Four<T>*>(from);
  return {number(raw.item[0]), number(raw.item[1]), number(raw.item[2]), number(raw.item[3])};
}
template <typename T>
DEBLUR_FN void store_four(T* to, Four<float> x) {
  *reinterpret_cast<Four<T>*>(to) = {rounded<T>(x.item[0]), rounded<T>(x.item[1]),
                                     rounded<T>(x.item[2]), rounded<T>(x.item[3])};
}
template <typename T>
DEBLUR_FN void copy_four(T* to, const T* from) {
  *reinterpret_cast<Four<T>*>(to) = *reinterpret_cast<const Four<T>*>(from);
}
// a * x + sum
DEBLUR_FN Four<float> fma_four(float a, Four<float> x, Four<float> sum) {
  DEBLUR_UNROLL
  for (int i = 0; i < 4; ++i) sum.item[i] = fmaf(a, x.item[i], sum.item[i]);
  return sum;
}
DEBLUR_FN Four<float> fma_four(Four<float> a, Four<float> x, Four<float> sum) {
  DEBLUR_UNROLL
  for (int i = 0; i < 4; ++i) sum.item[i] = fmaf(a.item[i], x.item[i], sum.item[i]);
  return sum;
}

DEBLUR_FN int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
DEBLUR_FN int64_t round_to(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
DEBLUR_FN int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
DEBLUR_FN int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

}  // namespace deblur
