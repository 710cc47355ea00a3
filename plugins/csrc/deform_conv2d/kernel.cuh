// The CUDA kernels of DeformConv2d and DeformConv2dAt, modulated deformable convolution (Zhu et al.
// 2019, "Deformable ConvNets v2", arXiv:1811.11168, Eq. 1, with one offset group):
//
//   y[o, p] = bias[o] + sum_k mask[k, p] sum_c weight[o, c, k] x[c](p + g_k + offset_k(p))
//
// It is a matrix product: a row of A has the modulated samples of one pixel, kernel^2 x channels,
// and a column of B the weights of one output. The rows are never stored; a tile of them is sampled
// from the padded image into shared memory whenever the product needs it (implicit GEMM).
#pragma once

#include "../common/gemm.cuh"
#include "../common/padded.cuh"

namespace deblur {

// weight [outputs, c, taps] -> packed [outputs, taps, stride], in which neighbouring channels lie
// side by side as in the rows of samples; zero beyond the channels.
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
                                   : from_float<T>(0.0f);
  }
};

// The product, for gemm_tile. padded [n, padded pixels, stride]; weight as packed; bias [outputs];
// mask [n, taps, pixels]; offset [n, 2 taps, pixels]; index [n, pixels]; y [n, outputs, pixels].
template <typename T>
struct DeformGemm {
  // Two blocks for each multiprocessor: while one waits for its samples, the other multiplies.
  static constexpr int kThreads = kGemmThreads, kResident = 2;
  using Shared = GemmTile<T>;
  // One output pixel: its image, its number in the list, its position (y, x). Rows that only fill
  // up a tile have image -1.
  struct Row {
    int64_t image, number, y, x;
  };
  const T *padded, *weight, *bias, *mask;
  const float* offset;
  const int64_t* index;  // null: all pixels in their order
  T* y;
  int64_t n, outputs, pixels;
  ImageSize size;
  int64_t stride;  // channels of a pixel, a multiple of kTileK, so that a tile never has two taps
  int32_t kernel;

  // Rows of one image, filled up so that no tile has two images.
  DEBLUR_FN int64_t rows() const { return round_up(pixels, kTileM); }
  int64_t blocks() const { return n * rows() / kTileM * ceil_div(outputs, kTileN); }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& tile) const {
    const int64_t across = ceil_div(outputs, kTileN);
    gemm_tile<T>(*this, block, tile, block.index / across * kTileM, block.index % across * kTileN);
  }

  DEBLUR_FN int64_t depth() const { return kernel * kernel * stride; }

  // A listed number outside the image is a pixel as far outside, which samples zeros; it is limited
  // to 2^40, so that nothing overflows. Division rounds towards zero, so negative ones are
  // corrected.
  DEBLUR_FN Row row(int64_t i) const {
    const int64_t image = i / rows(), number = i % rows();
    if (number >= pixels) return {-1, 0, 0, 0};
    constexpr int64_t far = int64_t{1} << 40;
    const int64_t listed = index == nullptr ? number : index[image * pixels + number];
    const int64_t pixel = smaller(larger(listed, -far), far), rest = pixel % size.width;
    const int64_t line = pixel / size.width;
    return {image, number, rest < 0 ? line - 1 : line, rest < 0 ? rest + size.width : rest};
  }

  // Samples kLoadK neighbouring channels of one tap: one sample position, four rows of the padded
  // image, 4 channels at a time.
  DEBLUR_FN void load_a(const Row& row, int64_t k, T* to) const {
    if (row.image < 0) {
      for (int four = 0; four < kLoadK; four += 4) store4(to + four, {});
      return;
    }
    const int64_t taps = kernel * kernel, tap = k / stride, channel = k % stride, edge = kernel / 2;
    const float* at = offset + (row.image * taps + tap) * 2 * pixels + row.number;
    const float scale = to_float(mask[(row.image * taps + tap) * pixels + row.number]);
    const Sample sample = sample_at(size, row.y + tap / kernel - edge, row.x + tap % kernel - edge,
                                    at[0], at[pixels], scale);
    const int64_t down = (size.width + 2) * stride;
    const T* corner = padded + (row.image * padded_pixels(size) + sample.base) * stride + channel;
    for (int four = 0; four < kLoadK; four += 4) {
      Vec4<float> value = fma4(sample.factor[0], load4(corner + four), {});
      value = fma4(sample.factor[1], load4(corner + stride + four), value);
      value = fma4(sample.factor[2], load4(corner + down + four), value);
      value = fma4(sample.factor[3], load4(corner + down + stride + four), value);
      store4(to + four, value);
    }
  }

  // Weights of output j.
  DEBLUR_FN void load_b(int64_t j, int64_t k, T* to) const {
    for (int four = 0; four < kLoadK; four += 4) {
      if (j < outputs) copy4(to + four, weight + j * depth() + k + four);
      else store4(to + four, {});
    }
  }

  // Adds the bias and writes y: neighbouring threads have neighbouring pixels of one output.
  DEBLUR_FN void epilogue(int thread, int64_t first, int64_t column, const float* sums) const {
    const int own = thread % kTileM;
    const int64_t image = (first + own) / rows(), number_ = (first + own) % rows();
    if (number_ >= pixels) return;
    for (int j = thread / kTileM; j < kTileN && column + j < outputs; j += kGemmThreads / kTileM) {
      const float sum = sums[own * kOutPitch + j] + to_float(bias[column + j]);
      y[(image * outputs + column + j) * pixels + number_] = from_float<T>(sum);
    }
  }
};

}  // namespace deblur
