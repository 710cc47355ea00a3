// MotionDeformConv of features with the channels last: a pixel is a row already, so that nothing is
// copied. All channels of a pixel go one after the other, which reads whole rows; a strip goes down
// the image, so that the rows around it stay in the cache.
#include <string.h>

#include "../common/buffer.h"
#include "../common/features.h"
#include "arguments.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kSlice = 32;  // pixels of a strip
constexpr int kVectors = 4;     // sums in registers
constexpr int64_t kLine = 16;   // floats of a cache line, which tasks do not share

int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// Samples of a slice of an image row. Where all four corners lie inside the image, `base` is the
// number of the first, else -1 minus its place in the canvas.
struct Slice {
  Sample samples[kSlice * kMotionTaps];
  bool inside[kSlice];  // all samples of the pixel

  void find(const float* offset, const Sample* plan, Canvas canvas, int64_t begin, int64_t count) {
    if (plan == nullptr) motion_plan(offset, canvas, begin, begin + count, samples);
    else memcpy(samples, plan + begin * kMotionTaps,
                sizeof(Sample) * kMotionTaps * static_cast<size_t>(count));
    const int32_t pitch = canvas.width + 2;
    for (int64_t i = 0; i < count; ++i) {
      inside[i] = true;
      for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
        int32_t& base = samples[i * kMotionTaps + tap].base;
        const int32_t y = base / pitch - 1, x = base % pitch - 1;
        const bool all = y >= 0 && y + 1 < canvas.height && x >= 0 && x + 1 < canvas.width;
        base = all ? y * canvas.width + x : -1 - base;
        inside[i] = inside[i] && all;
      }
    }
  }
};

// What the pixels of an image have in common. weights [taps][c]; nothing [c] zeros.
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

  // Sums of `Count` vectors of channels from `first` on.
  template <int Count>
  DEBLUR_INLINE_METHOD void convolve(const T* const (*at)[4], const Sample* samples, int64_t first,
                                     float* sums) const {
    Vec sum[Count];
    for (int v = 0; v < Count; ++v) sum[v] = load(bias + first + v * kWidth);
    for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
      const float* factor = samples[tap].factor;
      const Vec f0 = set(factor[0]), f1 = set(factor[1]), f2 = set(factor[2]), f3 = set(factor[3]);
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

  float convolve_one(const T* const (*at)[4], const Sample* samples, int64_t channel) const {
    float sum = bias[channel];
    for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
      float value = 0.0f;
      for (int i = 0; i < 4; ++i) value += samples[tap].factor[i] * to_float(at[tap][i][channel]);
      sum += weights[tap * c + channel] * value;
    }
    return sum;
  }

  // All channels of a pixel; sums [c] is scratch.
  void convolve_pixel(const Sample* samples, bool inside, float* sums, T* out) const {
    const T* at[kMotionTaps][4];
    for (int64_t tap = 0; tap < kMotionTaps; ++tap)
      if (inside) corners<true>(samples[tap].base, at[tap]);
      else corners<false>(samples[tap].base, at[tap]);
    int64_t first = 0;
    for (; first + kVectors * kWidth <= c; first += kVectors * kWidth)
      convolve<kVectors>(at, samples, first, sums);
    for (; first + kWidth <= c; first += kWidth) convolve<1>(at, samples, first, sums);
    for (; first < c; ++first) sums[first] = convolve_one(at, samples, first);
    if (gate) multiply(sums, sums + c / 2, c / 2, out);
    else copy(sums, c, out);
  }
};

template <class T>
int32_t convolve_all(const MotionArguments& a, Team& team) {
  const Canvas canvas = {static_cast<int32_t>(a.h), static_cast<int32_t>(a.w)};
  const int64_t pixels = a.h * a.w, strips = (a.w + kSlice - 1) / kSlice;
  const int64_t bands = at_most((4 * team.size() + strips - 1) / strips, a.h);
  const int64_t outputs = a.gate ? a.c / 2 : a.c;
  Floats weights(kMotionTaps * a.c), nothing(a.c);
  if (!weights || !nothing) return DEBLUR_NO_MEMORY;
  memset(nothing.data(), 0, sizeof(float) * static_cast<size_t>(a.c));
  for (int64_t channel = 0; channel < a.c; ++channel)
    for (int64_t tap = 0; tap < kMotionTaps; ++tap)
      weights.data()[tap * a.c + channel] = a.weight[channel * kMotionTaps + tap];
  const int64_t tasks = a.n * strips * bands;
  Floats scratch(tasks * round_up(a.c, kLine));
  if (!scratch) return DEBLUR_NO_MEMORY;
  parallel_for(team, tasks, [&](int64_t task) {
    const int64_t image = task / (strips * bands), place = task % (strips * bands);
    const int64_t left = place / bands * kSlice, count = at_most(a.w - left, kSlice);
    const int64_t band = place % bands;
    const Image<T> all = {static_cast<const T*>(a.x) + image * pixels * a.c, weights.data(), a.bias,
                          reinterpret_cast<const T*>(nothing.data()),
                          static_cast<T*>(a.y) + image * pixels * outputs, a.c, a.h, a.w, a.gate};
    const float* offset = a.offset ? a.offset + image * 2 * kMotionTaps * pixels : nullptr;
    const Sample* plan = a.plan ? a.plan + image * pixels * kMotionTaps : nullptr;
    Slice slice;
    for (int64_t y = a.h * band / bands; y < a.h * (band + 1) / bands; ++y) {
      const int64_t begin = y * a.w + left;
      slice.find(offset, plan, canvas, begin, count);
      for (int64_t i = 0; i < count; ++i) {
        all.convolve_pixel(slice.samples + i * kMotionTaps, slice.inside[i],
                           scratch.data() + task * round_up(a.c, kLine),
                           all.y + (begin + i) * outputs);
      }
    }
  });
  return DEBLUR_OK;
}

}  // namespace

int32_t motion_deform_conv_last(const MotionArguments& a, Team& team) {
  return a.features == DEBLUR_LAST_BF16 ? convolve_all<Bf16>(a, team) : convolve_all<float>(a, team);
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
