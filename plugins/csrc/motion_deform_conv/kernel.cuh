// MotionDeformConv over rows of channels, with the gate folded in.
//
// Why not straight from x [c, h, w], a thread a pixel: 36 loads of one number each an output, and
// as many cache lines a warp as its neighbouring pixels move apart, which learned motion does at
// every edge. Over rows of channels a load is four numbers of one lane and a warp reads 128
// neighbouring channels whatever the offsets are; the samples of a pixel are found once for all of
// them. The price is one more pass over x, read once and written once (FillCanvas), against 36
// reads from the cache.
#pragma once

#include "../common/padded.cuh"

namespace deblur {

template <typename T>
struct MotionConv {
  static constexpr int kThreads = 256;
  static constexpr int kTaps = 9;
  static constexpr int kPixels = 32;     // of a block, in the order of the image
  static constexpr int kChannels = 128;  // of a half: four a lane of each warp
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kPitch = kPixels + 1;
  struct Shared {
    Four<float> factors[kTaps * kPixels];
    Four<float> weight[2 * kTaps * kChannels / 4], bias[2 * kChannels / 4];
    int32_t base[kTaps * kPixels];
    float out[kChannels * kPitch];  // row 32 j + lane holds channel 4 lane + j
  };
  const T* canvas;
  const float* offset;
  const T *weight, *bias;
  T* y;
  int64_t n;
  Canvas size;
  RowShape row;

  DEBLUR_FN int64_t pixels() const { return static_cast<int64_t>(size.height) * size.width; }
  int64_t blocks() const {
    return n * ceil_div(pixels(), kPixels) * ceil_div(row.stride, kChannels);
  }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    const int lane = block.thread % 32, warp = block.thread / 32;
    const int64_t groups = ceil_div(row.stride, kChannels), tiles = ceil_div(pixels(), kPixels);
    const int64_t group = block.index % groups * kChannels;
    const int64_t pixel = block.index / groups % tiles * kPixels;
    const int64_t image = block.index / (groups * tiles);
    find_samples(block, shared, image, pixel);
    load_weights(block, shared, group);
    block.sync();
    if (group + 4 * lane < row.stride) {
      for (int i = warp; i < kPixels; i += kWarps) {
        Four<float> out = convolve(shared, image, group, 0, i, lane);
        if (row.halves == 2) {
          const Four<float> second = convolve(shared, image, group, 1, i, lane);
          for (int j = 0; j < 4; ++j) out.item[j] *= second.item[j];
        }
        for (int j = 0; j < 4; ++j) shared.out[(32 * j + lane) * kPitch + i] = out.item[j];
      }
    }
    block.sync();
    for (int i = warp; i < kChannels; i += kWarps) {
      const int64_t channel = group + 4 * (i % 32) + i / 32;
      if (channel >= row.channels || pixel + lane >= pixels()) continue;
      T* to = y + (image * row.channels + channel) * pixels() + pixel + lane;
      *to = rounded<T>(shared.out[i * kPitch + lane]);
    }
  }

 private:
  template <typename Block>
  DEBLUR_FN void find_samples(const Block& block, Shared& shared, int64_t image,
                              int64_t first) const {
    for (int i = block.thread; i < kTaps * kPixels; i += kThreads) {
      const int tap = i / kPixels;
      const int64_t pixel = smaller(first + i % kPixels, pixels() - 1);
      const float* at = offset + (image * kTaps + tap) * 2 * pixels() + pixel;
      const int64_t line = pixel / size.width + tap / 3 - 1;
      const int64_t column = pixel % size.width + tap % 3 - 1;
      const Sample sample = sample_at(size, line, column, at[0], at[pixels()], 1.0f);
      shared.base[i] = sample.base;
      for (int j = 0; j < 4; ++j) shared.factors[i].item[j] = sample.factor[j];
    }
  }

  template <typename Block>
  DEBLUR_FN void load_weights(const Block& block, Shared& shared, int64_t group) const {
    for (int i = block.thread; i < row.halves * kChannels; i += kThreads) {
      const int half = i / kChannels, column = i % kChannels;
      const int64_t lane = group + column, channel = half * row.channels + lane;
      const bool used = lane < row.channels;
      shared.bias[i / 4].item[i % 4] = used ? number(bias[channel]) : 0.0f;
      for (int tap = 0; tap < kTaps; ++tap) {
        const int to = (half * kTaps + tap) * kChannels + column;
        shared.weight[to / 4].item[to % 4] = used ? number(weight[channel * kTaps + tap]) : 0.0f;
      }
    }
  }

  // Four channels of one half at one pixel of the block.
  DEBLUR_FN Four<float> convolve(const Shared& shared, int64_t image, int64_t group, int half,
                                 int pixel, int lane) const {
    const int64_t right = row.wide(), down = (size.width + 2) * right;
    const T* rows =
        canvas + image * canvas_pixels(size) * right + half * row.stride + group + 4 * lane;
    Four<float> sum = shared.bias[half * kChannels / 4 + lane];
    DEBLUR_UNROLL_3
    for (int tap = 0; tap < kTaps; ++tap) {
      const T* corner = rows + shared.base[tap * kPixels + pixel] * right;
      const Four<float> factors = shared.factors[tap * kPixels + pixel];
      Four<float> value = fma_four(factors.item[0], load_four(corner), {});
      value = fma_four(factors.item[1], load_four(corner + right), value);
      value = fma_four(factors.item[2], load_four(corner + down), value);
      value = fma_four(factors.item[3], load_four(corner + down + right), value);
      sum = fma_four(shared.weight[(half * kTaps + tap) * kChannels / 4 + lane], value, sum);
    }
    return sum;
  }
};

}  // namespace deblur
