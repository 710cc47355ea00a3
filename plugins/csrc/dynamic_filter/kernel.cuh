// The CUDA kernel of DynamicFilter3 and DynamicFilter5, the dynamic low-pass of FSNet (Cui et al.,
// "Image Restoration via Frequency Selection", TPAMI 2024): every plane has a filter of its own,
// and the image is mirrored at its border. One thread for each output.
#pragma once

#include "../common/launch.cuh"

namespace deblur {

// The position that is mirrored to `position`, which may lie any distance beyond the border [0,
// size). The last pixel is not repeated.
DEBLUR_FN int64_t mirrored(int64_t position, int64_t size) {
  const int64_t span = 2 * (size - 1);
  if (span == 0) return 0;
  const int64_t phase = ((position % span) + span) % span;
  return smaller(phase, span - phase);
}

// x and y [planes, h, w]; weight [planes, kernel^2]. A block computes neighbouring pixels of one
// plane.
template <typename T>
struct DynamicFilter {
  static constexpr int kThreads = 256;
  static constexpr int kMostTaps = 25;
  struct Shared {
    float weight[kMostTaps];
  };
  const T *x, *weight;
  T* y;
  int64_t planes, h, w;
  int32_t kernel;

  DEBLUR_FN int64_t per_plane() const { return ceil_div(h * w, kThreads); }
  int64_t blocks() const { return planes * per_plane(); }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    const int64_t plane = block.index / per_plane();
    const int64_t pixel = block.index % per_plane() * kThreads + block.thread;
    // The filter of the plane, which all threads of the block read.
    const int taps = kernel * kernel;
    if (block.thread < taps)
      shared.weight[block.thread] = to_float(weight[plane * taps + block.thread]);
    block.sync();
    if (pixel >= h * w) return;
    const T* own = x + plane * h * w;
    float sum = 0.0f;
    for (int tap = 0; tap < taps; ++tap) {
      const int64_t line = mirrored(pixel / w + tap / kernel - kernel / 2, h);
      const int64_t column = mirrored(pixel % w + tap % kernel - kernel / 2, w);
      sum = fmaf(shared.weight[tap], to_float(own[line * w + column]), sum);
    }
    y[plane * h * w + pixel] = from_float<T>(sum);
  }
};

}  // namespace deblur
