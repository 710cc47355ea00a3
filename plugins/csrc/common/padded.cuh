// An image as rows of channels in the border of zeros of common/index.h.
#pragma once

#include "bilinear.h"
#include "launch.cuh"

namespace deblur {

// Rows have `halves` parts of `stride` channels, a multiple of four, so that four are one load.
struct RowShape {
  int64_t halves, channels, stride;  // of a half
  DEBLUR_FN int64_t wide() const { return halves * stride; }
};
DEBLUR_FN RowShape row_shape(int64_t channels, int64_t halves) {
  const int64_t half = channels / halves;
  return {halves, half, round_to(half, 4)};
}

// x [n, halves * channels, h, w] -> canvas [n, canvas pixels, halves, stride], through tiles that
// are read along the pixels and written along the channels.
template <typename T>
struct FillCanvas {
  static constexpr int kThreads = 256;
  static constexpr int kSide = 32;
  static constexpr int kPitch = kSide + 1;
  struct Shared {
    T tile[kSide * kPitch];
  };
  const T* x;
  T* canvas;
  int64_t n;
  Canvas size;
  RowShape row;

  int64_t blocks() const {
    return n * ceil_div(canvas_pixels(size), kSide) * ceil_div(row.wide(), kSide);
  }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    const int lane = block.thread % kSide, line = block.thread / kSide;
    const int64_t across = ceil_div(row.wide(), kSide), pixels = canvas_pixels(size);
    const int64_t along = ceil_div(pixels, kSide), channel = block.index % across * kSide;
    const int64_t pixel = block.index / across % along * kSide;
    const int64_t image = block.index / (across * along);
    for (int i = line; i < kSide; i += kThreads / kSide)
      shared.tile[i * kPitch + lane] = at(image, channel + i, pixel + lane);
    block.sync();
    for (int i = line; i < kSide; i += kThreads / kSide) {
      if (pixel + i >= pixels || channel + lane >= row.wide()) continue;
      T* to = canvas + (image * pixels + pixel + i) * row.wide() + channel + lane;
      *to = shared.tile[lane * kPitch + i];
    }
  }

 private:
  // Zero in the border, and in channels that only fill a half up.
  DEBLUR_FN T at(int64_t image, int64_t column, int64_t pixel) const {
    const int64_t half = column / row.stride, channel = column % row.stride;
    const int64_t line = size.width + 2, y = pixel / line - 1, x_ = pixel % line - 1;
    const bool inside = y >= 0 && y < size.height && x_ >= 0 && x_ < size.width;
    if (!inside || half >= row.halves || channel >= row.channels) return rounded<T>(0.0f);
    const int64_t plane = (image * row.halves + half) * row.channels + channel;
    return x[(plane * size.height + y) * size.width + x_];
  }
};

}  // namespace deblur
