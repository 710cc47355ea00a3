// MotionDeformConv of features with the channels last, one pixel after the other.
#pragma once

#include "../common/features.h"
#include "../common/vec.h"
#include "arguments.h"

namespace deblur {
namespace DEBLUR_TARGET {

constexpr int64_t kSlice = 32;  // pixels
constexpr int kVectors = 4;     // sums in registers

static inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

// Samples of a slice of an image row, one array a tap. Where all four corners lie inside the image,
// `base` is the number of the first, else -1 minus its place in the canvas.
struct Slice {
  int32_t base[kMotionTaps][kSlice];
  float factor[kMotionTaps][4][kSlice];
  int32_t inside[kSlice];  // whether all samples of the pixel are

  void find(const float* offset, const Sample* plan, Canvas canvas, int64_t begin, int64_t count) {
    const int64_t pixels = static_cast<int64_t>(canvas.height) * canvas.width;
    const int64_t y = begin / canvas.width, x = begin % canvas.width;
    const bool exact = canvas.height < kExact && canvas.width < kExact;
    for (int64_t i = 0; i < kSlice; ++i) inside[i] = 1;
    for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
      if (plan != nullptr) {
        for (int64_t i = 0; i < count; ++i)
          set_sample(tap, i, canvas, plan[(begin + i) * kMotionTaps + tap]);
        continue;
      }
      const float *down = offset + 2 * tap * pixels + begin, *right = down + pixels;
      const int64_t row = y + tap / 3 - 1, column = x + tap % 3 - 1;
      const int64_t done = exact ? count / kWidth * kWidth : 0;
      set_samples(tap, done, canvas, static_cast<float>(row), static_cast<float>(column), down,
                  right);
      for (int64_t i = done; i < count; ++i)
        set_sample(tap, i, canvas,
                   sample_at(canvas, row, column + i, down[i], right[i], 1.0f));
    }
  }

 private:
  static constexpr int32_t kExact = 1 << 23;  // floats count pixels that far, and twice as far

  // sample_at for the first `count` pixels, whole vectors.
  DEBLUR_INLINE_METHOD void set_samples(int64_t tap, int64_t count, Canvas canvas, float y, float x,
                                        const float* down, const float* right) {
    const Vec one = set(1.0f), zero = set(0.0f), half = set(0.5f), most = set(16777216.0f);
    const Vec height = set(static_cast<float>(canvas.height));
    const Vec width = set(static_cast<float>(canvas.width));
    float places[kWidth], tops[kSlice], lefts[kSlice];
    for (int i = 0; i < kWidth; ++i) places[i] = x + static_cast<float>(i);
    for (int64_t i = 0; i < count; i += kWidth) {
      const Vec dy = load(down + i), dx = load(right + i);
      const Vec lower = floor(min(max(dy, zero - most), most));
      const Vec lefter = floor(min(max(dx, zero - most), most));
      const Vec top = set(y) + lower;
      const Vec left = load(places) + set(static_cast<float>(i)) + lefter;
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
    for (int64_t i = 0; i < count; ++i) {
      const int32_t top = static_cast<int32_t>(tops[i]), left = static_cast<int32_t>(lefts[i]);
      const int32_t all = (top >= 0) & (top + 1 < canvas.height) & (left >= 0) &
                          (left + 1 < canvas.width);
      const int32_t pixel = top * canvas.width + left;
      const int32_t place = -1 - canvas_index(canvas, top, left);
      base[tap][i] = all ? pixel : place;
      inside[i] &= all;
    }
  }
  DEBLUR_INLINE_METHOD void set_sample(int64_t tap, int64_t i, Canvas canvas,
                                       const Sample& sample) {
    const int32_t pitch = canvas.width + 2;
    // Exact: the quotient of whole numbers, half a step away from the next.
    const int32_t y = static_cast<int32_t>((sample.base + 0.5) * (1.0 / pitch)) - 1;
    const int32_t x = sample.base - (y + 1) * pitch - 1;
    const bool all = (y >= 0) & (y + 1 < canvas.height) & (x >= 0) & (x + 1 < canvas.width);
    base[tap][i] = all ? y * canvas.width + x : -1 - sample.base;
    inside[i] &= all;
    for (int corner = 0; corner < 4; ++corner) factor[tap][corner][i] = sample.factor[corner];
  }
};

// What the pixels of an image have in common. weights [taps][c]; nothing [c] zeros. Pairs have
// weights of their own.
template <class T>
struct Image {
  const T* x;
  const float *weights, *bias;
  const T* nothing;
  T* y;
  int64_t c, h, w;
  bool gate;

  template <bool Inside>
  DEBLUR_INLINE_METHOD void corners(int32_t base, const T** at) const {
    if (Inside || base >= 0) {
      at[0] = x + base * c;
      at[1] = at[0] + c;
      at[2] = at[0] + w * c;
      at[3] = at[2] + c;
      return;
    }
    const int64_t place = -1 - static_cast<int64_t>(base), pitch = w + 2;
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t row = place / pitch - 1 + i / 2, column = place % pitch - 1 + i % 2;
      const bool inside = row >= 0 && row < h && column >= 0 && column < w;
      at[i] = inside ? x + (row * w + column) * c : nothing;
    }
  }
  // The corners of all samples of pixel i.
  DEBLUR_INLINE_METHOD void corners(const Slice& slice, int64_t i, const T* (*at)[4]) const {
    for (int64_t tap = 0; tap < kMotionTaps; ++tap)
      if (slice.inside[i]) corners<true>(slice.base[tap][i], at[tap]);
      else corners<false>(slice.base[tap][i], at[tap]);
  }

  // Sums of `Count` vectors of channels from `first` on.
  template <int Count>
  DEBLUR_INLINE_METHOD void convolve(const T* const (*at)[4], const Slice& slice, int64_t i,
                                     int64_t first, float* sums) const {
    Vec sum[Count];
    for (int v = 0; v < Count; ++v) sum[v] = load(bias + first + v * kWidth);
    for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
      const float(*factor)[kSlice] = slice.factor[tap];
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

  // All channels of pixel i of a slice; sums [c] is scratch.
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
