// The functions of one step of SelectiveScan on the GPU, and the length of its chunks.
#pragma once

#include "../common/number.cuh"

namespace deblur {

constexpr float kLog2E = 1.44269504088896341f;

// 2^x, the decay of a state for x = delta A log2(e). A decay near 1 needs an exact distance from 1,
// because its error adds up over many steps, but the special function unit rounds the decay itself:
// for |x| < 1/8 it is 1 + x p(x), whose error is 6e-10. NaN stays NaN.
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

// log(1 + exp(x)), and x itself above 20, as in PyTorch.
DEBLUR_FN float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

DEBLUR_FN float silu(float x) { return x / (1.0f + expf(-x)); }

// Steps of a chunk: about the square root of the length, so that the number of chunks and the steps
// of a chunk grow alike. That leaves enough blocks for large images with few channels and for small
// ones with many.
constexpr int64_t kShortestChunk = 128;
DEBLUR_FN int64_t chunk_steps(int64_t length) {
  int64_t steps = kShortestChunk;
  while (steps * steps < length) steps *= 2;
  return steps;
}

}  // namespace deblur
