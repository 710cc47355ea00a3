// The CUDA kernels of PrunedConv, the first half of M2AENet's mask-aware block (arXiv:2507.07708,
// Sec. 3.2 and Eq. 5):
//
//   y[p] = gate(depthwise3x3(conv1x1(x)))[p]   where mask[p] > 0.5; gate multiplies both halves
//   y[p] = x[p] x[p]                           elsewhere
//
// PrunedPointwise computes the 1x1 convolution of the pixels of the dilated mask (dilated_mask.cuh)
// as a matrix product, one row of `hidden` for each listed pixel. PrunedDepthwise computes the
// depth-wise convolution and the gate at the masked pixels, whose 3x3 neighbours are all listed,
// and x x at the others.
//
// Both run band by band of image lines, which bounds the memory of `hidden`. How many pixels a band
// has is known on the device alone: as many blocks are launched as could be of use, and they take
// tiles until none is left.
#pragma once

#include "../common/gemm.cuh"
#include "dilated_mask.cuh"

namespace deblur {

constexpr int kTaps = 9;

// A band: lines [begin, end) of the images, which lie one below the other. Its masked pixels need
// the hidden rows of one line more on each side; as the list is sorted, that is one run of the
// list, [first, last).
struct Band {
  const int32_t *list, *positions, *line_starts;
  int64_t begin, end, lines;

  DEBLUR_FN int64_t first() const { return line_starts[larger(begin - 1, 0)]; }
  DEBLUR_FN int64_t last() const { return line_starts[smaller(end + 1, lines)]; }
};

// A row of `hidden`: two halves of `channels`, each filled up to `stride`, a multiple of four, so
// that four channels are one aligned load.
struct HiddenRow {
  int64_t channels, stride;
  DEBLUR_FN int64_t row_stride() const { return 2 * stride; }
};

// hidden [listed pixels of the band, row stride] = x of the listed pixels times weight [2c, c] +
// bias [2c], by gemm_tile; x [n, c, h, w].
template <typename T>
struct PrunedPointwise {
  // Two blocks for each multiprocessor: while one waits for its loads, the other multiplies.
  static constexpr int kThreads = kGemmThreads, kResident = 2;
  // About twice the blocks that a large GPU can hold, so that all multiprocessors stay busy to the
  // end.
  static constexpr int64_t kMostBlocks = DEBLUR_BOUND(2048, 2);
  using Shared = GemmTile<T>;
  using Row = int64_t;  // position in x of the first channel of a pixel; -1 for none
  const T *x, *weight, *bias;
  T* hidden;  // of the band
  Band band;
  HiddenRow row_;
  int64_t area;  // pixels of an image
  int64_t blocks_;
  bool aligned4;  // whether four weights of a row are one aligned load

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& tile) const {
    const int64_t across = ceil_div(2 * row_.channels, kTileN);
    // The number of tiles follows from the list; a block takes every blocks_-th of them.
    const int64_t tiles = ceil_div(band.last() - band.first(), kTileM) * across;
    for (int64_t i = block.index; i < tiles; i += blocks_)
      gemm_tile<T>(*this, block, tile, i / across * kTileM, i % across * kTileN);
  }

  DEBLUR_FN int64_t depth() const { return row_.channels; }

  DEBLUR_FN Row row(int64_t i) const {
    const int64_t position = band.first() + i;
    if (position >= band.last()) return -1;
    const int64_t pixel = band.list[position], image = pixel / area;
    return image * row_.channels * area + pixel % area;
  }

  // Channels of one listed pixel. They lie an image apart, but neighbouring threads have
  // neighbouring pixels of the list, which are mostly neighbours in x too.
  DEBLUR_FN void load_a(Row from, int64_t k, T* to) const {
    DEBLUR_UNROLL
    for (int i = 0; i < kLoadK; ++i) {
      const bool used = from >= 0 && k + i < row_.channels;
      to[i] = used ? x[from + (k + i) * area] : from_float<T>(0.0f);
    }
  }

  // Weights of output j; c need not be a multiple of four, and the tensor only has to be aligned to
  // its elements, so that there is a slow path.
  DEBLUR_FN void load_b(int64_t j, int64_t k, T* to) const {
    const int64_t c = row_.channels;
    const T* from = weight + j * c + k;
    DEBLUR_UNROLL
    for (int four = 0; four < kLoadK; four += 4) {
      if (aligned4 && j < 2 * c && k + four < c) {
        copy4(to + four, from + four);
        continue;
      }
      DEBLUR_UNROLL
      for (int i = four; i < four + 4; ++i)
        to[i] = j < 2 * c && k + i < c ? from[i] : from_float<T>(0.0f);
    }
  }

  // Adds the bias and writes the rows; the second half of the outputs begins at `stride`.
  DEBLUR_FN void epilogue(int thread, int64_t first, int64_t column, const float* sums) const {
    const int64_t count = smaller(band.last() - band.first() - first, kTileM);
    const int64_t j = column + thread % kTileN, c = row_.channels;
    if (j >= 2 * c) return;
    const int64_t to = j < c ? j : row_.stride + j - c;
    for (int64_t i = thread / kTileN; i < count; i += kGemmThreads / kTileN) {
      const float sum = sums[i * kOutPitch + j - column] + to_float(bias[j]);
      hidden[(first + i) * row_.row_stride() + to] = from_float<T>(sum);
    }
  }
};

// y [n, c, h, w] of the lines of a band; weight [2c, 9], bias [2c]. A block computes 32
// neighbouring pixels x 128 channels of each half.
template <typename T>
struct PrunedDepthwise {
  static constexpr int kThreads = 256;
  static constexpr int kPixels = 32;     // of a block
  static constexpr int kChannels = 128;  // of each half: four for each lane of a warp
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kPitch = kPixels + 1;
  struct Shared {
    Vec4<float> weight[2 * kTaps * kChannels / 4], bias[2 * kChannels / 4];
    // Rows of `hidden` of the nine neighbours, [tap][pixel]; -1 outside the image.
    int32_t near[kTaps * kPixels];
    int32_t masked[kPixels], any;  // `any`: whether a pixel of the block is masked
    // The results, to be transposed: row 32 j + lane holds channel 4 lane + j, so that the lanes of
    // a warp write to different banks.
    float out[kChannels * kPitch];
  };
  const T *x, *hidden, *weight, *bias;
  T* y;
  Mask<T> mask;
  Band band;
  HiddenRow row;

  DEBLUR_FN int64_t pixels() const { return (band.end - band.begin) * mask.w; }
  int64_t blocks() const { return ceil_div(pixels(), kPixels) * ceil_div(row.stride, kChannels); }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    const int lane = block.thread % 32, warp = block.thread / 32;
    const int64_t groups = ceil_div(row.stride, kChannels);
    const int64_t group = block.index % groups * kChannels;
    const int64_t first = band.begin * mask.w + block.index / groups * kPixels;
    // Which pixels are masked, and where their neighbours lie. `any` is cleared before and read
    // after a barrier; all threads that set it write the same value.
    if (block.thread == 0) shared.any = 0;
    block.sync();
    find_neighbours(block, shared, first);
    block.sync();
    // In large unmasked regions no block needs its weights.
    if (shared.any) load_weights(block, shared, group);
    block.sync();
    // Every warp takes its masked pixels, every lane four channels of both halves.
    if (group + 4 * lane < row.stride) {
      for (int i = warp; i < kPixels; i += kWarps) {
        if (!shared.masked[i]) continue;
        Vec4<float> out = convolve(shared, group, 0, i, lane);
        const Vec4<float> second = convolve(shared, group, 1, i, lane);
        for (int j = 0; j < 4; ++j)
          shared.out[(32 * j + lane) * kPitch + i] = out.item[j] * second.item[j];
      }
    }
    block.sync();
    // Write y in NCHW: the lanes of a warp have neighbouring pixels of one channel.
    const int64_t pixel = first + lane, area = mask.h * mask.w;
    if (pixel >= band.end * mask.w) return;
    const int64_t corner = pixel / area * row.channels * area + pixel % area;
    for (int i = warp; i < kChannels; i += kWarps) {
      const int64_t channel = group + 4 * (i % 32) + i / 32, at = corner + channel * area;
      if (channel >= row.channels) continue;
      const float square = to_float(x[at]) * to_float(x[at]);
      y[at] = from_float<T>(shared.masked[lane] ? shared.out[i * kPitch + lane] : square);
    }
  }

 private:
  // One thread for each tap of each pixel.
  template <typename Block>
  DEBLUR_FN void find_neighbours(const Block& block, Shared& shared, int64_t first) const {
    for (int i = block.thread; i < kTaps * kPixels; i += kThreads) {
      const int tap = i / kPixels, own = i % kPixels;
      const int64_t pixel = first + own, line = pixel / mask.w;
      const bool masked = pixel < band.end * mask.w && mask.has(pixel);
      const int64_t y = line % mask.h + tap / 3 - 1, column = pixel % mask.w + tap % 3 - 1;
      const bool inside = masked && y >= 0 && y < mask.h && column >= 0 && column < mask.w;
      const int64_t other = pixel + (tap / 3 - 1) * mask.w + tap % 3 - 1;
      shared.near[i] = inside ? static_cast<int32_t>(band.positions[other] - 1 - band.first()) : -1;
      if (tap == 0) shared.masked[own] = masked;
      if (masked) shared.any = 1;
    }
  }

  // Weights as [half][tap][channel], so that a lane loads four of them at once; zero in lanes
  // without a channel.
  template <typename Block>
  DEBLUR_FN void load_weights(const Block& block, Shared& shared, int64_t group) const {
    for (int i = block.thread; i < 2 * kChannels; i += kThreads) {
      const int half = i / kChannels, column = i % kChannels;
      const int64_t channel = half * row.channels + group + column;
      const bool used = group + column < row.channels;
      shared.bias[i / 4].item[i % 4] = used ? to_float(bias[channel]) : 0.0f;
      for (int tap = 0; tap < kTaps; ++tap) {
        const int to = (half * kTaps + tap) * kChannels + column;
        shared.weight[to / 4].item[to % 4] = used ? to_float(weight[channel * kTaps + tap]) : 0.0f;
      }
    }
  }

  // Four channels of one half at one pixel of the block. A neighbour outside the image is the zero
  // padding of the depth-wise convolution.
  DEBLUR_FN Vec4<float> convolve(const Shared& shared, int64_t group, int half, int pixel,
                                 int lane) const {
    const T* rows = hidden + half * row.stride + group + 4 * lane;
    Vec4<float> sum = shared.bias[half * kChannels / 4 + lane];
    DEBLUR_UNROLL
    for (int tap = 0; tap < kTaps; ++tap) {
      const int32_t near = shared.near[tap * kPixels + pixel];
      if (near < 0) continue;
      const Vec4<float> value = load4(rows + near * row.row_stride());
      sum = fma4(shared.weight[(half * kTaps + tap) * kChannels / 4 + lane], value, sum);
    }
    return sum;
  }
};

}  // namespace deblur
