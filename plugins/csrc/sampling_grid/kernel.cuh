// The CUDA kernel of SamplingGrid: the positions at which MotionDeformConv samples, in the
// coordinates of GridSample (align_corners = 0), ((2 x + 1) / w - 1, (2 y + 1) / h - 1). One thread
// for each position.
#pragma once

#include "../common/launch.cuh"

namespace deblur {

// offset [n, 18, h, w], (dy, dx) of each tap; grid [9, n, h, w, 2].
struct SamplingGrid {
  static constexpr int kThreads = 256;
  static constexpr int64_t kTaps = 9;
  struct Shared {};
  const float* offset;
  float* grid;
  int64_t n, h, w;

  int64_t blocks() const { return ceil_div(kTaps * n * h * w, kThreads); }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared&) const {
    const int64_t i = block.index * kThreads + block.thread;
    if (i >= kTaps * n * h * w) return;
    // The tap, image and pixel of this position; dy and dx of a tap are two planes of the offsets.
    const int64_t x = i % w, y = i / w % h, image = i / (h * w) % n, tap = i / (h * w * n);
    const float* down = offset + ((image * kTaps + tap) * 2 * h + y) * w + x;
    const float row = static_cast<float>(y + tap / 3 - 1);
    const float column = static_cast<float>(x + tap % 3 - 1);
    grid[2 * i] = ((down[h * w] + column) * 2.0f + 1.0f) / static_cast<float>(w) - 1.0f;
    grid[2 * i + 1] = ((*down + row) * 2.0f + 1.0f) / static_cast<float>(h) - 1.0f;
  }
};

}  // namespace deblur
