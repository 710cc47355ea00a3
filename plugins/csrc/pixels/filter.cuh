// DynamicFilter, SamplingGrid, PixelGather and PixelScatter: a thread an output.
#pragma once

#include "../common/launch.cuh"

namespace deblur {

// Where a position beyond the border lies, to and fro.
DEBLUR_FN int64_t mirrored(int64_t position, int64_t size) {
  const int64_t span = 2 * (size - 1);
  if (span == 0) return 0;
  const int64_t phase = ((position % span) + span) % span;
  return smaller(phase, span - phase);
}

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
    const int taps = kernel * kernel;
    if (block.thread < taps)
      shared.weight[block.thread] = number(weight[plane * taps + block.thread]);
    block.sync();
    if (pixel >= h * w) return;
    const T* own = x + plane * h * w;
    float sum = 0.0f;
    for (int tap = 0; tap < taps; ++tap) {
      const int64_t line = mirrored(pixel / w + tap / kernel - kernel / 2, h);
      const int64_t column = mirrored(pixel % w + tap % kernel - kernel / 2, w);
      sum = fmaf(shared.weight[tap], number(own[line * w + column]), sum);
    }
    y[plane * h * w + pixel] = rounded<T>(sum);
  }
};

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
    const int64_t x = i % w, y = i / w % h, image = i / (h * w) % n, tap = i / (h * w * n);
    const float* down = offset + ((image * kTaps + tap) * 2 * h + y) * w + x;
    const float row = static_cast<float>(y + tap / 3 - 1);
    const float column = static_cast<float>(x + tap % 3 - 1);
    grid[2 * i] = ((down[h * w] + column) * 2.0f + 1.0f) / static_cast<float>(w) - 1.0f;
    grid[2 * i + 1] = ((*down + row) * 2.0f + 1.0f) / static_cast<float>(h) - 1.0f;
  }
};

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
