// Index arithmetic of the custom ops, for C++ and for CUDA.
#pragma once

#include <stdint.h>

#if defined(__CUDACC__)
#define DEBLUR_HD __host__ __device__ static inline
#else
#define DEBLUR_HD static inline
#endif

namespace deblur {

// Images that are sampled have a border of zeros: a row above and two below, a column on each
// side. A 2 x 2 neighbourhood that reaches into the image lies in this canvas as a whole, and one
// that does not is moved to the last two rows.
struct Canvas {
  int32_t height, width;  // of the image itself
};
DEBLUR_HD int64_t canvas_pixels(Canvas c) {
  return (static_cast<int64_t>(c.height) + 3) * (static_cast<int64_t>(c.width) + 2);
}
DEBLUR_HD int32_t canvas_index(Canvas c, int32_t y, int32_t x) {
  return (y + 1) * (c.width + 2) + x + 1;
}

// Numbers of canvas pixels are 32-bit.
static inline bool canvas_fits(int64_t h, int64_t w) {
  constexpr int64_t kMost = INT64_C(1) << 30;
  return h >= 0 && w >= 0 && h < kMost && w < kMost && (h + 3) * (w + 2) < kMost;
}
static inline Canvas canvas_of(int64_t h, int64_t w) {
  return {static_cast<int32_t>(h), static_cast<int32_t>(w)};
}

// A bilinear sample: the upper left pixel of the neighbourhood in the canvas, and the factors of
// its four pixels, row by row.
struct Sample {
  int32_t base;
  float factor[4];
};

// Largest whole number not above x. NaN and what lies far outside any image become -2^24 or 2^24.
DEBLUR_HD int32_t floor_index(float x) {
  const float most = 16777216.0f;
  const float bounded = x > -most ? (x < most ? x : most) : -most;
  const int32_t cut = static_cast<int32_t>(bounded);
  return cut - (static_cast<float>(cut) > bounded ? 1 : 0);
}

// The sample at (y + dy, x + dx), exact in the pixel: only the offset is split. An offset that is
// NaN or infinite gives factors that are NaN; pixels outside the image count as zero.
DEBLUR_HD Sample sample_at(Canvas canvas, int64_t y, int64_t x, float dy, float dx, float scale) {
  const int32_t down = floor_index(dy), right = floor_index(dx);
  const int64_t top = y + down, left = x + right;
  const float none = (dy - dy) + (dx - dx);  // 0, or NaN
  const bool inside = top >= -1 && top < canvas.height && left >= -1 && left < canvas.width;
  const float fy = inside ? dy - static_cast<float>(down) : none;
  const float fx = inside ? dx - static_cast<float>(right) : none;
  Sample sample;
  sample.base = inside ? canvas_index(canvas, static_cast<int32_t>(top), static_cast<int32_t>(left))
                       : canvas_index(canvas, canvas.height, -1);
  const float lower = scale * fy, upper = scale - lower;
  sample.factor[1] = upper * fx;
  sample.factor[0] = upper - sample.factor[1];
  sample.factor[3] = lower * fx;
  sample.factor[2] = lower - sample.factor[3];
  return sample;
}

}  // namespace deblur
