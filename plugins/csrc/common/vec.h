// A vector of floats of the instruction set that a file is compiled for: 16 with AVX-512, 8 with
// AVX2, else 4.
//
// Every kernel*.cpp is compiled once for each instruction set, into a namespace of its own
// (DEBLUR_TARGET). Nothing here or in a kernel may be shared between them, since the linker could
// keep the AVX-512 copy of a function for all. Hence all functions are static, and no standard
// templates are used.
#pragma once

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#else
#include <string.h>
#endif
#include <stdint.h>

#if defined(_MSC_VER)
#define DEBLUR_INLINE_METHOD __forceinline
#else
#define DEBLUR_INLINE_METHOD inline __attribute__((always_inline))
#endif
#define DEBLUR_INLINE static DEBLUR_INLINE_METHOD

// A hint that `bytes` from p on are read soon; p need not be valid.
#if defined(__GNUC__)
#define DEBLUR_PREFETCH(p, bytes)                                           \
  for (int64_t line_ = 0; line_ < static_cast<int64_t>(bytes); line_ += 64) \
  __builtin_prefetch(reinterpret_cast<const char*>(p) + line_, 0, 2)
#else
#define DEBLUR_PREFETCH(p, bytes) (void)(p)
#endif

namespace deblur {
namespace DEBLUR_TARGET {

// The smaller of two numbers, and `value` rounded up to a multiple of `to`.
DEBLUR_INLINE int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
DEBLUR_INLINE int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// Added to a float, it leaves the nearest whole number, plus 127, in the low bits of the sum.
constexpr float kRounder = 12582912.0f + 127.0f;  // 1.5 * 2^23

#if defined(__AVX512F__)

constexpr int kWidth = 16;
struct Vec {
  __m512 v;
};

DEBLUR_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
DEBLUR_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
DEBLUR_INLINE Vec set(float a) { return {_mm512_set1_ps(a)}; }
DEBLUR_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
DEBLUR_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
DEBLUR_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
DEBLUR_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
DEBLUR_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// Of two numbers; b where either is NaN.
DEBLUR_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
DEBLUR_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
DEBLUR_INLINE Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
// floor(x), for |x| up to 2^24.
DEBLUR_INLINE Vec floor(Vec x) {
  return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
}
// a where x > y, else b (also where x or y is NaN).
DEBLUR_INLINE Vec where_greater(Vec x, Vec y, Vec a, Vec b) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, y.v, _CMP_GT_OQ), b.v, a.v)};
}
// x = n + rest, with a whole n and rest in [-1/2, 1/2]; x is finite or NaN. times_power(p, split)
// is p 2^n: 0 and infinity beyond the range of float, NaN for NaN.
struct Split {
  Vec whole, rest;
};
DEBLUR_INLINE Split split(Vec x) {
  const Vec n = {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  return {n, x - n};
}
DEBLUR_INLINE Vec times_power(Vec p, Split x) { return {_mm512_scalef_ps(p.v, x.whole.v)}; }

// c plus the products of the pairs of bfloat16 in each lane of a and b. Only for processors that
// have it (Isa::avx512_bf16). It is written as assembler, because the compiler must not use that
// instruction set anywhere else.
#define DEBLUR_PAIRS
DEBLUR_INLINE Vec fma_pairs(Vec a, Vec b, Vec c) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(c.v) : "v"(a.v), "v"(b.v));
  return c;
}

#elif defined(__AVX2__) && defined(__FMA__)

constexpr int kWidth = 8;
struct Vec {
  __m256 v;
};

DEBLUR_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
DEBLUR_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
DEBLUR_INLINE Vec set(float a) { return {_mm256_set1_ps(a)}; }
DEBLUR_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
DEBLUR_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
DEBLUR_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
DEBLUR_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
DEBLUR_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
DEBLUR_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
DEBLUR_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
DEBLUR_INLINE Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
DEBLUR_INLINE Vec floor(Vec x) { return {_mm256_floor_ps(x.v)}; }
DEBLUR_INLINE Vec where_greater(Vec x, Vec y, Vec a, Vec b) {
  return {_mm256_blendv_ps(b.v, a.v, _mm256_cmp_ps(x.v, y.v, _CMP_GT_OQ))};
}
// The low bits of `biased` hold n + 127, which is the exponent of 2^n.
struct Split {
  Vec biased, rest;
};
DEBLUR_INLINE Split split(Vec x) {
  const Vec magic = set(kRounder);
  x = min(set(128.0f), max(set(-127.0f), x));
  const Vec biased = x + magic;
  return {biased, x - (biased - magic)};
}
DEBLUR_INLINE Vec times_power(Vec p, Split x) {
  const __m256i bits = _mm256_slli_epi32(_mm256_castps_si256(x.biased.v), 23);
  return {_mm256_mul_ps(p.v, _mm256_castsi256_ps(bits))};
}

#else

// Without intrinsics: four floats side by side, for which GCC and Clang use what the processor has
// (SSE2, NEON, or single floats).
constexpr int kWidth = 4;
typedef float Four __attribute__((vector_size(16)));
typedef uint32_t FourBits __attribute__((vector_size(16)));
typedef int32_t FourInts __attribute__((vector_size(16)));
struct Vec {
  Four v;
};

DEBLUR_INLINE Vec load(const float* p) {
  Vec a;
  memcpy(&a.v, p, sizeof a.v);
  return a;
}
DEBLUR_INLINE void store(float* p, Vec a) { memcpy(p, &a.v, sizeof a.v); }
DEBLUR_INLINE Vec set(float a) { return {Four{a, a, a, a}}; }
DEBLUR_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
DEBLUR_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
DEBLUR_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
DEBLUR_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
DEBLUR_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
DEBLUR_INLINE Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
DEBLUR_INLINE Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
DEBLUR_INLINE Vec abs(Vec a) { return {(Four)((FourBits)a.v & 0x7FFFFFFFu)}; }
DEBLUR_INLINE Vec where_greater(Vec x, Vec y, Vec a, Vec b) { return {x.v > y.v ? a.v : b.v}; }
DEBLUR_INLINE Vec floor(Vec x) {
  const Vec cut = {__builtin_convertvector(__builtin_convertvector(x.v, FourInts), Four)};
  return where_greater(cut, x, cut - set(1.0f), cut);
}
struct Split {
  Vec biased, rest;
};
DEBLUR_INLINE Split split(Vec x) {
  const Vec magic = set(kRounder);
  x = min(set(128.0f), max(set(-127.0f), x));
  const Vec biased = x + magic;
  return {biased, x - (biased - magic)};
}
DEBLUR_INLINE Vec times_power(Vec p, Split x) { return {p.v * (Four)((FourBits)x.biased.v << 23)}; }

#endif

}  // namespace DEBLUR_TARGET
}  // namespace deblur
