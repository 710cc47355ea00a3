// The CUDA kernel of MotionDeformConv, over padded images with the channels last (FillPadded), with
// the gate folded in (M2AENet, arXiv:2507.07708, Sec. 3.3; the sampling is that of bilinear.h):
//
//   z[c, p] = bias[c] + sum_k weight[c, k] x[c](p + g_k + offset_k(p)),   y = z, or z[c] z[C/2 + c]
//
// Why not straight from x [c, h, w] with one thread for each pixel: every output would take 36
// loads of one number, and a warp would touch as many cache lines as its neighbouring pixels move
// apart, which learned motion does at every edge. With the channels last, a load is four channels
// of one lane, a warp reads 128 neighbouring channels whatever the offsets are, and the samples of
// a pixel are found once for all of them. The price is one more pass over x, which is read once and
// written once, against 36 reads from the cache.
#pragma once

#include "../common/padded.cuh"

namespace deblur {

// padded [n, padded pixels, halves, stride]; offset [n, 18, h, w]; weight [halves * channels, 9];
// bias [halves * channels]; y [n, channels, h, w]. A block computes 32 pixels x 128 channels of
// each half.
template <typename T>
struct MotionConv {
  static constexpr int kThreads = 256;
  static constexpr int kTaps = 9;
  static constexpr int kPixels = 32;     // of a block, neighbours in the order of the image
  static constexpr int kChannels = 128;  // of a half: four for each lane of a warp
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kPitch = kPixels + 1;
  struct Shared {
    Vec4<float> factors[kTaps * kPixels];  // of the samples, [tap][pixel]
    Vec4<float> weight[2 * kTaps * kChannels / 4], bias[2 * kChannels / 4];
    int32_t base[kTaps * kPixels];  // of the samples, [tap][pixel]
    // The results, to be transposed: row 32 j + lane holds channel 4 lane + j, so that the lanes of
    // a warp write to different banks.
    float out[kChannels * kPitch];
  };
  const T* padded;
  const float* offset;
  const T *weight, *bias;
  T* y;
  int64_t n;
  ImageSize size;
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
    // Everything that the pixels share goes through shared memory: the samples, which serve all
    // channels, and the weights, which serve all pixels.
    find_samples(block, shared, image, pixel);
    load_weights(block, shared, group);
    block.sync();
    // Every warp takes its pixels, every lane four channels. The lanes beyond the last channel skip
    // this but not the barrier below.
    if (group + 4 * lane < row.stride) {
      for (int i = warp; i < kPixels; i += kWarps) {
        Vec4<float> out = convolve(shared, image, group, 0, i, lane);
        if (row.halves == 2) {
          const Vec4<float> second = convolve(shared, image, group, 1, i, lane);
          for (int j = 0; j < 4; ++j) out.item[j] *= second.item[j];
        }
        for (int j = 0; j < 4; ++j) shared.out[(32 * j + lane) * kPitch + i] = out.item[j];
      }
    }
    // Write y in NCHW: the lanes of a warp have neighbouring pixels of one channel.
    block.sync();
    for (int i = warp; i < kChannels; i += kWarps) {
      const int64_t channel = group + 4 * (i % 32) + i / 32;
      if (channel >= row.channels || pixel + lane >= pixels()) continue;
      T* to = y + (image * row.channels + channel) * pixels() + pixel + lane;
      *to = from_float<T>(shared.out[i * kPitch + lane]);
    }
  }

 private:
  // One thread for each tap of each pixel. Beyond the last pixel of the image the samples repeat
  // it; their results are not written.
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

  // Weights as [half][tap][channel], so that a lane loads four of them at once; zero in lanes
  // without a channel.
  template <typename Block>
  DEBLUR_FN void load_weights(const Block& block, Shared& shared, int64_t group) const {
    for (int i = block.thread; i < row.halves * kChannels; i += kThreads) {
      const int half = i / kChannels, column = i % kChannels;
      const int64_t lane = group + column, channel = half * row.channels + lane;
      const bool used = lane < row.channels;
      shared.bias[i / 4].item[i % 4] = used ? to_float(bias[channel]) : 0.0f;
      for (int tap = 0; tap < kTaps; ++tap) {
        const int to = (half * kTaps + tap) * kChannels + column;
        shared.weight[to / 4].item[to % 4] = used ? to_float(weight[channel * kTaps + tap]) : 0.0f;
      }
    }
  }

  // Four channels of one half at one pixel of the block: interpolation between the four corners,
  // then the sum over the taps.
  DEBLUR_FN Vec4<float> convolve(const Shared& shared, int64_t image, int64_t group, int half,
                                 int pixel, int lane) const {
    const int64_t right = row.row_stride(), down = (size.width + 2) * right;
    const T* rows =
        padded + image * padded_pixels(size) * right + half * row.stride + group + 4 * lane;
    Vec4<float> sum = shared.bias[half * kChannels / 4 + lane];
    DEBLUR_UNROLL_3
    for (int tap = 0; tap < kTaps; ++tap) {
      const T* corner = rows + shared.base[tap * kPixels + pixel] * right;
      const Vec4<float> factors = shared.factors[tap * kPixels + pixel];
      Vec4<float> value = fma4(factors.item[0], load4(corner), {});
      value = fma4(factors.item[1], load4(corner + right), value);
      value = fma4(factors.item[2], load4(corner + down), value);
      value = fma4(factors.item[3], load4(corner + down + right), value);
      sum = fma4(shared.weight[(half * kTaps + tap) * kChannels / 4 + lane], value, sum);
    }
    return sum;
  }
};

}  // namespace deblur
