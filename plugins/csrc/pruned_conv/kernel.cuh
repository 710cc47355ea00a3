// PrunedConv: rows of the listed pixels times the 1x1 weights; then, at masked pixels, the
// depth-wise 3x3 over the rows of their neighbours, and the gate; x * x elsewhere.
//
// Bands of image lines bound what is held of the wide result. How many pixels a band has is known
// on the device alone: as many blocks run as could be of use, and take tiles until none is left.
#pragma once

#include "../common/product.cuh"
#include "dilated_mask.cuh"

namespace deblur {

constexpr int kTaps = 9;

// Lines [begin, end) of all images. Their masked pixels need the listed ones of a line more on each
// side, which are neighbours in the list as well.
struct Band {
  const int32_t *list, *places, *firsts;
  int64_t begin, end, lines;

  DEBLUR_FN int64_t first() const { return firsts[larger(begin - 1, 0)]; }
  DEBLUR_FN int64_t last() const { return firsts[smaller(end + 1, lines)]; }
};

// Channels of a row of the wide result: two halves, each filled up to a multiple of four.
struct WideRow {
  int64_t channels, stride;
  DEBLUR_FN int64_t wide() const { return 2 * stride; }
};

template <typename T>
struct PrunedProduct {
  static constexpr int kThreads = kProductThreads, kResident = 2;
  // Eight of 256 threads on every processor of a large GPU, twice.
  static constexpr int64_t kMostBlocks = DEBLUR_BOUND(2048, 2);
  using Shared = ProductTile<T>;
  using Row = int64_t;  // where the first channel of a pixel lies, or -1
  const T *x, *weight, *bias;
  T* hidden;  // of the band
  Band band;
  WideRow row_;
  int64_t area;  // pixels of an image
  int64_t blocks_;
  bool fours;  // whether four weights are aligned as one

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& tile) const {
    const int64_t across = ceil_div(2 * row_.channels, kColumns);
    const int64_t tiles = ceil_div(band.last() - band.first(), kRows) * across;
    for (int64_t i = block.index; i < tiles; i += blocks_)
      product_tile<T>(*this, block, tile, i / across * kRows, i % across * kColumns);
  }

  DEBLUR_FN int64_t depth() const { return row_.channels; }

  DEBLUR_FN Row row(int64_t i) const {
    const int64_t place = band.first() + i;
    if (place >= band.last()) return -1;
    const int64_t pixel = band.list[place], image = pixel / area;
    return image * row_.channels * area + pixel % area;
  }

  DEBLUR_FN void left(Row from, int64_t k, T* to) const {
    DEBLUR_UNROLL
    for (int i = 0; i < kRun; ++i) {
      const bool used = from >= 0 && k + i < row_.channels;
      to[i] = used ? x[from + (k + i) * area] : rounded<T>(0.0f);
    }
  }

  DEBLUR_FN void right(int64_t j, int64_t k, T* to) const {
    const int64_t c = row_.channels;
    const T* from = weight + j * c + k;
    DEBLUR_UNROLL
    for (int four = 0; four < kRun; four += 4) {
      if (fours && j < 2 * c && k + four < c) {
        copy_four(to + four, from + four);
        continue;
      }
      DEBLUR_UNROLL
      for (int i = four; i < four + 4; ++i)
        to[i] = j < 2 * c && k + i < c ? from[i] : rounded<T>(0.0f);
    }
  }

  DEBLUR_FN void finish(int thread, int64_t first, int64_t column, const float* sums) const {
    const int64_t count = smaller(band.last() - band.first() - first, kRows);
    const int64_t j = column + thread % kColumns, c = row_.channels;
    if (j >= 2 * c) return;
    const int64_t to = j < c ? j : row_.stride + j - c;
    for (int64_t i = thread / kColumns; i < count; i += kProductThreads / kColumns) {
      const float sum = sums[i * kOutPitch + j - column] + number(bias[j]);
      hidden[(first + i) * row_.wide() + to] = rounded<T>(sum);
    }
  }
};

template <typename T>
struct PrunedFinish {
  static constexpr int kThreads = 256;
  static constexpr int kPixels = 32;     // of a block
  static constexpr int kChannels = 128;  // of each half: four a lane of each warp
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kPitch = kPixels + 1;
  struct Shared {
    Four<float> weight[2 * kTaps * kChannels / 4], bias[2 * kChannels / 4];
    int32_t near[kTaps * kPixels];  // rows of the neighbours in the band, -1 outside the image
    int32_t masked[kPixels], any;
    float out[kChannels * kPitch];  // row 32 j + lane holds channel 4 lane + j
  };
  const T *x, *hidden, *weight, *bias;
  T* y;
  Mask<T> mask;
  Band band;
  WideRow row;

  DEBLUR_FN int64_t pixels() const { return (band.end - band.begin) * mask.w; }
  int64_t blocks() const { return ceil_div(pixels(), kPixels) * ceil_div(row.stride, kChannels); }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    const int lane = block.thread % 32, warp = block.thread / 32;
    const int64_t groups = ceil_div(row.stride, kChannels);
    const int64_t group = block.index % groups * kChannels;
    const int64_t first = band.begin * mask.w + block.index / groups * kPixels;
    if (block.thread == 0) shared.any = 0;
    block.sync();
    find_neighbours(block, shared, first);
    block.sync();
    if (shared.any) load_weights(block, shared, group);
    block.sync();
    if (group + 4 * lane < row.stride) {
      for (int i = warp; i < kPixels; i += kWarps) {
        if (!shared.masked[i]) continue;
        Four<float> out = convolve(shared, group, 0, i, lane);
        const Four<float> second = convolve(shared, group, 1, i, lane);
        for (int j = 0; j < 4; ++j)
          shared.out[(32 * j + lane) * kPitch + i] = out.item[j] * second.item[j];
      }
    }
    block.sync();
    const int64_t pixel = first + lane, area = mask.h * mask.w;
    if (pixel >= band.end * mask.w) return;
    const int64_t corner = pixel / area * row.channels * area + pixel % area;
    for (int i = warp; i < kChannels; i += kWarps) {
      const int64_t channel = group + 4 * (i % 32) + i / 32, at = corner + channel * area;
      if (channel >= row.channels) continue;
      const float square = number(x[at]) * number(x[at]);
      y[at] = rounded<T>(shared.masked[lane] ? shared.out[i * kPitch + lane] : square);
    }
  }

 private:
  template <typename Block>
  DEBLUR_FN void find_neighbours(const Block& block, Shared& shared, int64_t first) const {
    for (int i = block.thread; i < kTaps * kPixels; i += kThreads) {
      const int tap = i / kPixels, own = i % kPixels;
      const int64_t pixel = first + own, line = pixel / mask.w;
      const bool masked = pixel < band.end * mask.w && mask.has(pixel);
      const int64_t y = line % mask.h + tap / 3 - 1, column = pixel % mask.w + tap % 3 - 1;
      const bool inside = masked && y >= 0 && y < mask.h && column >= 0 && column < mask.w;
      const int64_t other = pixel + (tap / 3 - 1) * mask.w + tap % 3 - 1;
      shared.near[i] =
          inside ? static_cast<int32_t>(band.places[other] - 1 - band.first()) : -1;
      if (tap == 0) shared.masked[own] = masked;
      if (masked) shared.any = 1;
    }
  }

  template <typename Block>
  DEBLUR_FN void load_weights(const Block& block, Shared& shared, int64_t group) const {
    for (int i = block.thread; i < 2 * kChannels; i += kThreads) {
      const int half = i / kChannels, column = i % kChannels;
      const int64_t channel = half * row.channels + group + column;
      const bool used = group + column < row.channels;
      shared.bias[i / 4].item[i % 4] = used ? number(bias[channel]) : 0.0f;
      for (int tap = 0; tap < kTaps; ++tap) {
        const int to = (half * kTaps + tap) * kChannels + column;
        shared.weight[to / 4].item[to % 4] = used ? number(weight[channel * kTaps + tap]) : 0.0f;
      }
    }
  }

  // Four channels of one half at one pixel of the block.
  DEBLUR_FN Four<float> convolve(const Shared& shared, int64_t group, int half, int pixel,
                                 int lane) const {
    const T* rows = hidden + half * row.stride + group + 4 * lane;
    Four<float> sum = shared.bias[half * kChannels / 4 + lane];
    DEBLUR_UNROLL
    for (int tap = 0; tap < kTaps; ++tap) {
      const int32_t near = shared.near[tap * kPixels + pixel];
      if (near < 0) continue;
      const Four<float> value = load_four(rows + near * row.wide());
      sum = fma_four(shared.weight[(half * kTaps + tap) * kChannels / 4 + lane], value, sum);
    }
    return sum;
  }
};

}  // namespace deblur
