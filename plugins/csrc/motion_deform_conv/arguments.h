// MotionDeformConv: what the kernels of all instruction sets take.
#pragma once

#include <stdint.h>

#include "../common/bilinear.h"
#include "../common/dispatch.h"
#include "../common/parallel.h"

namespace deblur {

constexpr int64_t kMotionTaps = 9;

struct MotionArguments {
  int32_t features;  // of x and y: DEBLUR_FIRST, ...
  const void* x;
  const float *offset, *weight, *bias;
  const Sample* plan;  // [n, h, w, taps] or null
  void* y;
  int64_t n, c, h, w;
  bool gate;
};

// The samples of pixels [begin, end) of one image, [end - begin, taps].
static inline void motion_plan(const float* offset, Canvas canvas, int64_t begin, int64_t end,
                               Sample* plan) {
  const int64_t pixels = static_cast<int64_t>(canvas.height) * canvas.width;
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const int64_t y = pixel / canvas.width, x = pixel % canvas.width;
    const float* at = offset + pixel;
    for (int64_t tap = 0; tap < kMotionTaps; ++tap, at += 2 * pixels)
      *plan++ = sample_at(canvas, y + tap / 3 - 1, x + tap % 3 - 1, at[0], at[pixels], 1.0f);
  }
}

}  // namespace deblur

DEBLUR_DECLARE(int32_t motion_deform_conv(const MotionArguments&, Team&))
DEBLUR_DECLARE(int32_t motion_deform_conv_last(const MotionArguments&, Team&))
