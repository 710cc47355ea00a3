// Bilinear sampling of the deformable convolutions (Dai et al. 2017, "Deformable Convolutional
// Networks", arXiv:1703.06211, Eq. 3 and 4), for C++ and for CUDA: where a sample lies and what its
// four neighbours are multiplied by. A neighbour outside the image counts as zero.
#pragma once

#include <stdint.h>

#if defined(__CUDACC__)
#define DEBLUR_HD __host__ __device__ static inline
#else
#define DEBLUR_HD static inline
#endif

namespace deblur {

// The size of an image. Images that are sampled are copied into a padded image, with a border of
// zeros: one row above, two below, one column on each side. A 2 x 2 neighbourhood that reaches into
// the image lies as a whole in the padded image, and one that does not is moved to its last two
// rows, so that sampling needs no comparisons.
struct ImageSize {
  int32_t height, width;  // without the border
};
// Pixels of the padded image, and the position of pixel (y, x) in it, from -1 on.
DEBLUR_HD int64_t padded_pixels(ImageSize size) {
  return (static_cast<int64_t>(size.height) + 3) * (static_cast<int64_t>(size.width) + 2);
}
DEBLUR_HD int32_t padded_index(ImageSize size, int32_t y, int32_t x) {
  return (y + 1) * (size.width + 2) + x + 1;
}

// Whether the positions in a padded image of [h, w] fit 32 bits.
static inline bool padded_fits(int64_t h, int64_t w) {
  constexpr int64_t kMost = INT64_C(1) << 30;
  return h >= 0 && w >= 0 && h < kMost && w < kMost && (h + 3) * (w + 2) < kMost;
}
static inline ImageSize image_size(int64_t h, int64_t w) {
  return {static_cast<int32_t>(h), static_cast<int32_t>(w)};
}

// A bilinear sample: the position of the upper left pixel of its neighbourhood in the padded image,
// and the interpolation factors of the four pixels, row by row.
struct Sample {
  int32_t base;
  float factor[4];
};

// floor(x). NaN and what lies far outside any image become -2^24 or 2^24.
DEBLUR_HD int32_t floor_index(float x) {
  const float most = 16777216.0f;
  const float bounded = x > -most ? (x < most ? x : most) : -most;
  const int32_t cut = static_cast<int32_t>(bounded);
  return cut - (static_cast<float>(cut) > bounded ? 1 : 0);
}

// The sample at (y + dy, x + dx), all factors multiplied by `scale` (the modulation of
// DeformConv2d, 1 elsewhere). Only the offset is split into floor and fraction, so that the
// fraction does not lose bits to a large pixel position. An offset that is NaN or infinite gives
// factors that are NaN.
DEBLUR_HD Sample sample_at(ImageSize size, int64_t y, int64_t x, float dy, float dx, float scale) {
  const int32_t down = floor_index(dy), right = floor_index(dx);
  const int64_t top = y + down, left = x + right;
  const float none = (dy - dy) + (dx - dx);  // 0, or NaN
  const bool inside = top >= -1 && top < size.height && left >= -1 && left < size.width;
  const float fy = inside ? dy - static_cast<float>(down) : none;
  const float fx = inside ? dx - static_cast<float>(right) : none;
  Sample sample;
  sample.base = inside ? padded_index(size, static_cast<int32_t>(top), static_cast<int32_t>(left))
                       : padded_index(size, size.height, -1);
  const float lower = scale * fy, upper = scale - lower;
  sample.factor[1] = upper * fx;
  sample.factor[0] = upper - sample.factor[1];
  sample.factor[3] = lower * fx;
  sample.factor[2] = lower - sample.factor[3];
  return sample;
}

}  // namespace deblur
