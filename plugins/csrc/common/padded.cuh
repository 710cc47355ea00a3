// Copies images from NCHW into the padded images of bilinear.h, with the channels last.
#pragma once

#include "bilinear.h"
#include "launch.cuh"

namespace deblur {

// The channels of one padded pixel: one part, or the two halves that a gate multiplies. Each half
// is filled up to `stride` channels, a multiple of four, so that four channels are one aligned
// load.
struct RowShape {
  int64_t halves, channels, stride;  // channels and stride of a half
  DEBLUR_FN int64_t row_stride() const { return halves * stride; }
};
DEBLUR_FN RowShape row_shape(int64_t channels, int64_t halves) {
  const int64_t half = channels / halves;
  return {halves, half, round_up(half, 4)};
}

// x [n, halves * channels, h, w] -> padded [n, padded pixels, halves, stride]. A block transposes
// one tile of 32 channels x 32 pixels in shared memory: it reads along the pixels and writes along
// the channels, both coalesced.
template <typename T>
struct FillPadded {
  static constexpr int kThreads = 256;
  static constexpr int kSide = 32;
  static constexpr int kPitch = kSide + 1;  // columns of the tile in different banks
  struct Shared {
    T tile[kSide * kPitch];
  };
  const T* x;
  T* padded;
  int64_t n;
  ImageSize size;
  RowShape row;

  int64_t blocks() const {
    return n * ceil_div(padded_pixels(size), kSide) * ceil_div(row.row_stride(), kSide);
  }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    const int lane = block.thread % kSide, line = block.thread / kSide;
    const int64_t across = ceil_div(row.row_stride(), kSide), pixels = padded_pixels(size);
    const int64_t along = ceil_div(pixels, kSide), channel = block.index % across * kSide;
    const int64_t pixel = block.index / across % along * kSide;
    const int64_t image = block.index / (across * along);
    // Read: the lanes of a warp have neighbouring pixels of one channel.
    for (int i = line; i < kSide; i += kThreads / kSide)
      shared.tile[i * kPitch + lane] = at(image, channel + i, pixel + lane);
    // Write: the lanes of a warp have neighbouring channels of one pixel.
    block.sync();
    for (int i = line; i < kSide; i += kThreads / kSide) {
      if (pixel + i >= pixels || channel + lane >= row.row_stride()) continue;
      T* to = padded + (image * pixels + pixel + i) * row.row_stride() + channel + lane;
      *to = shared.tile[lane * kPitch + i];
    }
  }

 private:
  // The value of a padded pixel in a column of its row: zero in the border, and in channels that
  // only fill up a half.
  DEBLUR_FN T at(int64_t image, int64_t column, int64_t pixel) const {
    const int64_t half = column / row.stride, channel = column % row.stride;
    const int64_t line = size.width + 2, y = pixel / line - 1, x_ = pixel % line - 1;
    const bool inside = y >= 0 && y < size.height && x_ >= 0 && x_ < size.width;
    if (!inside || half >= row.halves || channel >= row.channels) return from_float<T>(0.0f);
    const int64_t plane = (image * row.halves + half) * row.channels + channel;
    return x[(plane * size.height + y) * size.width + x_];
  }
};

}  // namespace deblur
