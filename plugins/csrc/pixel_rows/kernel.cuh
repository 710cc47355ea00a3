// The CUDA kernels of PixelGather and PixelScatter (M2AENet, arXiv:2507.07708, Sec. 3.2): listed
// pixels of a feature map as rows, and back. One thread for each value.
#pragma once

#include "../common/launch.cuh"

namespace deblur {

// x [n, c, h, w]; index [pixels], numbers (image * h + y) * w + x; rows [pixels, kernel^2, c].
// Values are moved as they are, so that T only has their size. Zeros where a neighbour or a listed
// number is outside the images.
template <typename T>
struct PixelGather {
  static constexpr int kThreads = 256;
  struct Shared {};
  const T* x;
  const int64_t* index;
  T* rows;
  int64_t n, c, h, w, pixels;
  int32_t kernel;

  DEBLUR_FN int64_t values() const { return pixels * kernel * kernel * c; }
  int64_t blocks() const { return ceil_div(values(), kThreads); }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared&) const {
    const int64_t i = block.index * kThreads + block.thread;
    if (i >= values()) return;
    // The channel, tap and listed pixel of this value, and the neighbour that it is copied from.
    const int64_t taps = kernel * kernel, channel = i % c, tap = i / c % taps;
    const int64_t pixel = index[i / (c * taps)];
    const int64_t image = pixel / (h * w), line = pixel / w % h + tap / kernel - kernel / 2;
    const int64_t column = pixel % w + tap % kernel - kernel / 2;
    const bool listed = pixel >= 0 && image < n;
    const bool inside = listed && line >= 0 && line < h && column >= 0 && column < w;
    rows[i] = inside ? x[((image * c + channel) * h + line) * w + column] : T{};
  }
};

// Writes rows [pixels, c] to the listed pixels of y [n, c, area], which is a copy of the base
// already. Neighbouring threads have neighbouring entries of the list, which are mostly neighbours
// in y too.
template <typename T>
struct PixelScatter {
  static constexpr int kThreads = 256;
  struct Shared {};
  const int64_t* index;
  const T* rows;
  T* y;
  int64_t n, c, area, pixels;

  int64_t blocks() const { return ceil_div(pixels * c, kThreads); }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared&) const {
    const int64_t i = block.index * kThreads + block.thread;
    if (i >= pixels * c) return;
    const int64_t listed = i % pixels, channel = i / pixels, pixel = index[listed];
    if (pixel < 0 || pixel >= n * area) return;
    y[(pixel / area * c + channel) * area + pixel % area] = rows[listed * c + channel];
  }
};

}  // namespace deblur
