// The parts of MotionDeformConv for NHWC: the samples of a slice of an image row, and the
// convolution of one pixel in float32.
#pragma once

#include "../common/bf16.h"
#include "../common/vec.h"
#include "arguments.h"

namespace deblur {
namespace DEBLUR_TARGET {

constexpr int64_t kSlice = 32;  // pixels
constexpr int kVectors = 4;     // vectors of channels whose sums are held in registers

// The samples of a slice of an image row, one array for each tap. Where all four corners of a
// sample lie inside the image, `base` is the position of the first in the image; else it is -1
// minus its position in the padded image of bilinear.h, which does not exist here.
struct Slice {
  int32_t base[kMotionTaps][kSlice];
  float factor[kMotionTaps][4][kSlice];
  int32_t inside[kSlice];  // whether all samples of the pixel are inside the image

  // Finds the samples of the pixels [begin, begin + count), from the plan where there is one, else
  // from offset [18, h, w].
  void find(const float* offset, const Sample* plan, ImageSize size, int64_t begin, int64_t count) {
    const int64_t pixels = static_cast<int64_t>(size.height) * size.width;
    const int64_t y = begin / size.width, x = begin % size.width;
    const bool exact = size.height < kExact && size.width < kExact;
    for (int64_t i = 0; i < kSlice; ++i) inside[i] = 1;
    for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
      if (plan != nullptr) {
        for (int64_t i = 0; i < count; ++i)
          set_sample(tap, i, size, plan[(begin + i) * kMotionTaps + tap]);
        continue;
      }
      const float *down = offset + 2 * tap * pixels + begin, *right = down + pixels;
      const int64_t row = y + tap / 3 - 1, column = x + tap % 3 - 1;
      const int64_t done = exact ? count / kWidth * kWidth : 0;
      set_samples(tap, done, size, static_cast<float>(row), static_cast<float>(column), down,
                  right);
      for (int64_t i = done; i < count; ++i)
        set_sample(tap, i, size, sample_at(size, row, column + i, down[i], right[i], 1.0f));
    }
  }

 private:
  // Float32 holds every whole number up to twice this size, so that pixel positions are exact.
  static constexpr int32_t kExact = 1 << 23;

  // What sample_at computes, with vectors: for the first `count` pixels of a tap, a multiple of
  // kWidth. The results are equal bit for bit. (y, x) is the position of the tap at pixel 0.
  DEBLUR_INLINE_METHOD void set_samples(int64_t tap, int64_t count, ImageSize size, float y,
                                        float x, const float* down, const float* right) {
    const Vec one = set(1.0f), zero = set(0.0f), half = set(0.5f), most = set(16777216.0f);
    const Vec height = set(static_cast<float>(size.height));
    const Vec width = set(static_cast<float>(size.width));
    float columns[kWidth], tops[kSlice], lefts[kSlice];
    for (int i = 0; i < kWidth; ++i) columns[i] = x + static_cast<float>(i);
    // Factors, and the upper left corner of every sample.
    for (int64_t i = 0; i < count; i += kWidth) {
      const Vec dy = load(down + i), dx = load(right + i);
      const Vec lower = floor(min(max(dy, zero - most), most));
      const Vec lefter = floor(min(max(dx, zero - most), most));
      const Vec top = set(y) + lower;
      const Vec left = load(columns) + set(static_cast<float>(i)) + lefter;
      const Vec from = zero - one - half;  // between the last pixel outside and the first inside
      Vec reaches = where_greater(top, from, one, zero);
      reaches = where_greater(height - half, top, reaches, zero);
      reaches = where_greater(left, from, reaches, zero);
      reaches = where_greater(width - half, left, reaches, zero);
      const Vec none = (dy - dy) + (dx - dx);  // 0, or NaN
      const Vec fy = where_greater(reaches, half, dy - lower, none);
      const Vec fx = where_greater(reaches, half, dx - lefter, none);
      const Vec upper = one - fy, second = upper * fx, fourth = fy * fx;
      store(factor[tap][0] + i, upper - second);
      store(factor[tap][1] + i, second);
      store(factor[tap][2] + i, fy - fourth);
      store(factor[tap][3] + i, fourth);
      store(tops + i, where_greater(reaches, half, top, height));
      store(lefts + i, where_greater(reaches, half, left, zero - one));
    }
    // Positions: in the image where all four corners are inside, else in the padded image.
    for (int64_t i = 0; i < count; ++i) {
      const int32_t top = static_cast<int32_t>(tops[i]), left = static_cast<int32_t>(lefts[i]);
      const int32_t all =
          (top >= 0) & (top + 1 < size.height) & (left >= 0) & (left + 1 < size.width);
      const int32_t pixel = top * size.width + left;
      const int32_t outside = -1 - padded_index(size, top, left);
      base[tap][i] = all ? pixel : outside;
      inside[i] &= all;
    }
  }
  DEBLUR_INLINE_METHOD void set_sample(int64_t tap, int64_t i, ImageSize size,
                                       const Sample& sample) {
    const int32_t pitch = size.width + 2;
    // The row and column of the position, by a product instead of a slow division. This is exact:
    // half a pixel is added, which is far more than the product is off.
    const int32_t y = static_cast<int32_t>((sample.base + 0.5) * (1.0 / pitch)) - 1;
    const int32_t x = sample.base - (y + 1) * pitch - 1;
    const bool all = (y >= 0) & (y + 1 < size.height) & (x >= 0) & (x + 1 < size.width);
    base[tap][i] = all ? y * size.width + x : -1 - sample.base;
    inside[i] &= all;
    for (int corner = 0; corner < 4; ++corner) factor[tap][corner][i] = sample.factor[corner];
  }
};

// One image x [h, w, c] and its y. weights [taps][c]; zero_pixel [c] holds zeros. The class Pairs
// has weights of its own, so that its images have none.
template <class T>
struct Image {
  const T* x;
  const float *weights, *bias;
  const T* zero_pixel;
  T* y;
  int64_t c, h, w;
  bool gate;

  // The rows of x at the four corners of a sample; `base` as in Slice.
  template <bool Inside>
  DEBLUR_INLINE_METHOD void corners(int32_t base, const T** at) const {
    if (Inside || base >= 0) {
      at[0] = x + base * c;
      at[1] = at[0] + c;
      at[2] = at[0] + w * c;
      at[3] = at[2] + c;
      return;
    }
    const int64_t padded = -1 - static_cast<int64_t>(base), pitch = w + 2;
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t row = padded / pitch - 1 + i / 2, column = padded % pitch - 1 + i % 2;
      const bool inside = row >= 0 && row < h && column >= 0 && column < w;
      at[i] = inside ? x + (row * w + column) * c : zero_pixel;
    }
  }
  // The rows of x at the four corners of every sample of pixel i.
  DEBLUR_INLINE_METHOD void corners(const Slice& slice, int64_t i, const T* (*at)[4]) const {
    for (int64_t tap = 0; tap < kMotionTaps; ++tap)
      if (slice.inside[i]) corners<true>(slice.base[tap][i], at[tap]);
      else corners<false>(slice.base[tap][i], at[tap]);
  }

  // Sums over all taps for `Count` vectors of channels from `first` on.
  template <int Count>
  DEBLUR_INLINE_METHOD void convolve(const T* const (*at)[4], const Slice& slice, int64_t i,
                                     int64_t first, float* sums) const {
    Vec sum[Count];
    for (int v = 0; v < Count; ++v) sum[v] = load(bias + first + v * kWidth);
    for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
      const float (*factor)[kSlice] = slice.factor[tap];
      const Vec f0 = set(factor[0][i]), f1 = set(factor[1][i]);
      const Vec f2 = set(factor[2][i]), f3 = set(factor[3][i]);
      for (int v = 0; v < Count; ++v) {
        const int64_t here = first + v * kWidth;
        Vec value = f0 * load(at[tap][0] + here);
        value = fma(f1, load(at[tap][1] + here), value);
        value = fma(f2, load(at[tap][2] + here), value);
        value = fma(f3, load(at[tap][3] + here), value);
        sum[v] = fma(load(weights + tap * c + here), value, sum[v]);
      }
    }
    for (int v = 0; v < Count; ++v) store(sums + first + v * kWidth, sum[v]);
  }

  // The sum of one channel, where no whole vector is left.
  float convolve_one(const T* const (*at)[4], const Slice& slice, int64_t i,
                     int64_t channel) const {
    float sum = bias[channel];
    for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
      float value = 0.0f;
      for (int corner = 0; corner < 4; ++corner)
        value += slice.factor[tap][corner][i] * to_float(at[tap][corner][channel]);
      sum += weights[tap * c + channel] * value;
    }
    return sum;
  }

  // Computes all channels of pixel i of a slice: most of them several vectors at a time, then one
  // vector, then single channels. sums [c] is scratch.
  void convolve_pixel(const Slice& slice, int64_t i, float* sums, T* out) const {
    const T* at[kMotionTaps][4];
    corners(slice, i, at);
    int64_t first = 0;
    for (; first + kVectors * kWidth <= c; first += kVectors * kWidth)
      convolve<kVectors>(at, slice, i, first, sums);
    for (; first + kWidth <= c; first += kWidth) convolve<1>(at, slice, i, first, sums);
    for (; first < c; ++first) sums[first] = convolve_one(at, slice, i, first);
    if (gate) multiply(sums, sums + c / 2, c / 2, out);
    else copy(sums, c, out);
  }
};

}  // namespace DEBLUR_TARGET
}  // namespace deblur
