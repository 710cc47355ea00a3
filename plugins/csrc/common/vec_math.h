// Exponential, softplus and silu of a vector.
//
// Polynomials: Chebyshev interpolation of (2^f - 1) / f on [-1/2, 1/2], degree 5, error of 2^f
// 4e-9; of atanh(s) / s in s^2 on [0, 1/9], degree 5, error 1e-10.
#pragma once

#include "vec.h"

namespace deblur {
namespace DEBLUR_TARGET {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLog2ERest = 1.92596299e-8f;  // log2(e) - kLog2E

// 2^x for a finite x. Below 2^-126 it is 0 or subnormal, from 2^128 on infinite; NaN stays NaN. 2^f
// is 1 + f q(f), so that the error of a decay near 1 is small compared with its distance from 1.
DEBLUR_INLINE Vec exp2(Vec x) {
  const Split parts = split(x);
  const Vec f = parts.rest;
  Vec p = set(1.545316294e-04f);
  p = fma(p, f, set(1.339086336e-03f));
  p = fma(p, f, set(9.618082557e-03f));
  p = fma(p, f, set(5.550357114e-02f));
  p = fma(p, f, set(2.402265076e-01f));
  p = fma(p, f, set(6.931471880e-01f));
  return times_power(fma(p, f, set(1.0f)), parts);
}

// e^x = 2^(x log2(e)). The product is rounded; what was lost, r, is added again afterwards as
// 2^r = 1 + r log(2), which holds for a tiny r.
DEBLUR_INLINE Vec exp(Vec x) {
  x = min(set(100.0f), max(set(-100.0f), x));
  const Vec y = x * set(kLog2E);
  const Vec rest = fma(x, set(kLog2ERest), fma(x, set(kLog2E), set(0.0f) - y));
  const Vec power = exp2(y);
  return fma(power, rest * set(0.69314718f), power);
}

// log(1 + exp(x)), and x itself above 20, as in PyTorch; small results keep their relative
// precision.
DEBLUR_INLINE Vec softplus(Vec x) {
  const Vec t = exp(set(0.0f) - abs(x));
  const Vec s = t / (set(2.0f) + t);  // log(1 + t) = 2 atanh(t / (2 + t))
  const Vec w = s * s;
  Vec p = set(1.219695404e-01f);
  p = fma(p, w, set(1.069928026e-01f));
  p = fma(p, w, set(1.431010370e-01f));
  p = fma(p, w, set(1.999935562e-01f));
  p = fma(p, w, set(3.333333951e-01f));
  p = fma(p, w, set(1.0f));
  const Vec y = fma(set(2.0f) * s, p, max(set(0.0f), x));
  return where_greater(x, set(20.0f), x, y);
}

// x / (1 + exp(-x)).
DEBLUR_INLINE Vec silu(Vec x) { return x / (set(1.0f) + exp(set(0.0f) - x)); }

}  // namespace DEBLUR_TARGET
}  // namespace deblur
