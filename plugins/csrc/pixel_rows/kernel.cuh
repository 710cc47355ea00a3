// PixelGather and PixelScatter: a thread a value.
#pragma once

#include "../common/launch.cuh"

namespace deblur {

// Elements are moved as they are: T only has their size.
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
    const int64_t taps = kernel * kernel, channel = i % c, tap = i / c % taps;
    const int64_t pixel = index[i / (c * taps)];
    const int64_t image = pixel / (h * w), line = pixel / w % h + tap / kernel - kernel / 2;
    const int64_t column = pixel % w + tap % kernel - kernel / 2;
    const bool listed = pixel >= 0 && image < n;
    const bool inside = listed && line >= 0 && line < h && column >= 0 && column < w;
    rows[i] = inside ? x[((image * c + channel) * h + line) * w + column] : T{};
  }
};

// Into a copy of the base; threads follow the list, whose neighbours are mostly neighbours in y.
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
