// DeformConv2d and DeformConv2dAt: samples of the pixels, as rows, times the weights.
#pragma once

#include "../common/padded.cuh"
#include "../common/product.cuh"

namespace deblur {

// weight [outputs, c, taps] -> [outputs, taps, stride], zero beyond the channels.
template <typename T>
struct PackWeights {
  static constexpr int kThreads = 256;
  struct Shared {};
  const T* weight;
  T* packed;
  int64_t outputs, channels, taps, stride;

  int64_t blocks() const { return ceil_div(outputs * taps * stride, kThreads); }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared&) const {
    const int64_t i = block.index * kThreads + block.thread;
    if (i >= outputs * taps * stride) return;
    const int64_t channel = i % stride, tap = i / stride % taps, output = i / (stride * taps);
    packed[i] = channel < channels ? weight[(output * channels + channel) * taps + tap]
                                   : rounded<T>(0.0f);
  }
};

template <typename T>
struct DeformProduct {
  static constexpr int kThreads = kProductThreads, kResident = 2;
  using Shared = ProductTile<T>;
  // One pixel of the result; those that only fill a tile up have image -1.
  struct Row {
    int64_t image, number, y, x;
  };
  const T *canvas, *weight, *bias, *mask;
  const float* offset;
  const int64_t* index;  // or null
  T* y;
  int64_t n, outputs, pixels;
  Canvas size;
  int64_t stride;  // channels of a row, a multiple of kDepth, so that no tile has two taps
  int32_t kernel;

  DEBLUR_FN int64_t rows() const { return round_to(pixels, kRows); }  // of an image
  int64_t blocks() const { return n * rows() / kRows * ceil_div(outputs, kColumns); }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& tile) const {
    const int64_t across = ceil_div(outputs, kColumns);
    product_tile<T>(*this, block, tile, block.index / across * kRows,
                    block.index % across * kColumns);
  }

  DEBLUR_FN int64_t depth() const { return kernel * kernel * stride; }

  // A pixel below the image (or before its first) samples zeros, however far it is.
  DEBLUR_FN Row row(int64_t i) const {
    const int64_t image = i / rows(), number = i % rows();
    if (number >= pixels) return {-1, 0, 0, 0};
    constexpr int64_t far = int64_t{1} << 40;
    const int64_t listed = index == nullptr ? number : index[image * pixels + number];
    const int64_t pixel = smaller(larger(listed, -far), far), rest = pixel % size.width;
    const int64_t line = pixel / size.width;
    return {image, number, rest < 0 ? line - 1 : line, rest < 0 ? rest + size.width : rest};
  }

  DEBLUR_FN void left(const Row& row, int64_t k, T* to) const {
    if (row.image < 0) {
      for (int four = 0; four < kRun; four += 4) store_four(to + four, {});
      return;
    }
    const int64_t taps = kernel * kernel, tap = k / stride, channel = k % stride, edge = kernel / 2;
    const float* at = offset + (row.image * taps + tap) * 2 * pixels + row.number;
    const float scale = number(mask[(row.image * taps + tap) * pixels + row.number]);
    const Sample sample = sample_at(size, row.y + tap / kernel - edge, row.x + tap % kernel - edge,
                                    at[0], at[pixels], scale);
    const int64_t down = (size.width + 2) * stride;
    const T* corner =
        canvas + (row.image * canvas_pixels(size) + sample.base) * stride + channel;
    for (int four = 0; four < kRun; four += 4) {
      Four<float> value = fma_four(sample.factor[0], load_four(corner + four), {});
      value = fma_four(sample.factor[1], load_four(corner + stride + four), value);
      value = fma_four(sample.factor[2], load_four(corner + down + four), value);
      value = fma_four(sample.factor[3], load_four(corner + down + stride + four), value);
      store_four(to + four, value);
    }
  }

  DEBLUR_FN void right(int64_t j, int64_t k, T* to) const {
    for (int four = 0; four < kRun; four += 4) {
      if (j < outputs) copy_four(to + four, weight + j * depth() + k + four);
      else store_four(to + four, {});
    }
  }

  DEBLUR_FN void finish(int thread, int64_t first, int64_t column, const float* sums) const {
    const int own = thread % kRows;
    const int64_t image = (first + own) / rows(), number_ = (first + own) % rows();
    if (number_ >= pixels) return;
    for (int j = thread / kRows; j < kColumns && column + j < outputs;
         j += kProductThreads / kRows) {
      const float sum = sums[own * kOutPitch + j] + number(bias[column + j]);
      y[(image * outputs + column + j) * pixels + number_] = rounded<T>(sum);
    }
  }
};

}  // namespace deblur
