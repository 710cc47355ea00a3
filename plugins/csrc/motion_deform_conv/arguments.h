// The arguments of MotionDeformConv's CPU kernels, one for each instruction set and layout.
#pragma once

#include <stdint.h>

#include "../common/bilinear.h"
#include "../common/dispatch.h"
#include "../common/parallel.h"

namespace deblur {

constexpr int64_t kMotionTaps = 9;

// x [n, c, h, w] or [n, h, w, c]; offset [n, 18, h, w]; weight [c, 9]; bias [c]; y like x, with
// half the channels where there is a gate.
struct MotionArguments {
  int32_t layout;  // of x and y: DEBLUR_NCHW, ...
  const void* x;
  const float *offset, *weight, *bias;
  const Sample* plan;  // [n, h, w, taps], or null: the samples follow from offset
  void* y;
  int64_t n, c, h, w;
  bool gate;
};

// Writes the samples of the pixels [begin, end) of one image to plan [end - begin, taps]; offset
// [18, h, w] of the image has dy and dx of tap 0, then of tap 1, and so on.
static inline void motion_plan(const float* offset, ImageSize size, int64_t begin, int64_t end,
                               Sample* plan) {
  const int64_t pixels = static_cast<int64_t>(size.height) * size.width;
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const int64_t y = pixel / size.width, x = pixel % size.width;
    const float* at = offset + pixel;
    for (int64_t tap = 0; tap < kMotionTaps; ++tap, at += 2 * pixels)
      *plan++ = sample_at(size, y + tap / 3 - 1, x + tap % 3 - 1, at[0], at[pixels], 1.0f);
  }
}

}  // namespace deblur

DEBLUR_DECLARE(int32_t motion_deform_conv_nchw(const MotionArguments&, ThreadPool&))
DEBLUR_DECLARE(int32_t motion_deform_conv_nhwc(const MotionArguments&, ThreadPool&))
