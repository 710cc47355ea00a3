// The numbers of one step of the scan.
#pragma once

#include "../common/number.cuh"

namespace deblur {

constexpr float kLog2E = 1.44269504088896341f;

// 2^x, the decay of a state. Near 1 the distance from 1 has to be exact, since it adds up over many
// steps, and the special function unit rounds the decay itself: there it is 1 + x p(x), whose error
// is 6e-10. Nothing is added where x is infinite, and NaN stays NaN.
DEBLUR_FN float decay_of(float x) {
  float p = 1.33335581e-3f;
  p = fmaf(p, x, 9.61812911e-3f);
  p = fmaf(p, x, 5.55041087e-2f);
  p = fmaf(p, x, 2.40226507e-1f);
  p = fmaf(p, x, 6.93147181e-1f);
  const float near_one = fmaf(p, x, 1.0f);
#if defined(__CUDA_ARCH__)
  float far;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(far) : "f"(x));
#else
  const float far = exp2f(x);
#endif
  return fabsf(x) < 0.125f ? near_one : far;
}

// log(1 + exp(x)), and x itself above 20, as torch has it.
DEBLUR_FN float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

DEBLUR_FN float silu(float x) { return x / (1.0f + expf(-x)); }

// Steps of a chunk: about the square root of the length, so that chunks and the steps inside grow
// alike, and enough blocks remain for large images with few channels and small ones with many.
constexpr int64_t kShortestChunk = 128;
DEBLUR_FN int64_t chunk_steps(int64_t length) {
  int64_t steps = kShortestChunk;
  while (steps * steps < length) steps *= 2;
  return steps;
}

}  // namespace deblur
