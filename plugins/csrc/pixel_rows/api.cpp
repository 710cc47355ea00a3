// deblur_pixel_gather and deblur_pixel_scatter of deblur_cpu.h. They only move values, so that they
// have no kernel for each instruction set.
#include <algorithm>

#include "../common/parallel.h"
#include "../common/sizes.h"

using deblur::element_count;

namespace {

// Pixels that a task gathers, and channels that a task scatters.
constexpr int64_t kPixels = 256, kChannels = 16;

bool all_inside(const int64_t* index, int64_t count, int64_t most) {
  return std::all_of(index, index + count, [=](int64_t i) { return i >= 0 && i < most; });
}

// Checks the sizes of [n, c, h, w], and that all listed pixels lie in the images.
int32_t check(int64_t n, int64_t c, int64_t h, int64_t w, int64_t pixels, const int64_t* index) {
  if (element_count({n, c, h, w}) < 0 || element_count({n, h, w}) < 0 ||
      element_count({pixels, 9, c}) < 0)
    return DEBLUR_BAD_SIZE;
  if (pixels == 0) return DEBLUR_OK;
  if (index == nullptr) return DEBLUR_NO_TENSOR;
  return all_inside(index, pixels, n * h * w) ? DEBLUR_OK : DEBLUR_BAD_NUMBER;
}

}  // namespace

int32_t deblur_pixel_gather(const float* x, const int64_t* index, float* rows, int64_t n, int64_t c,
                            int64_t h, int64_t w, int64_t pixels, int32_t kernel,
                            const deblur_threads* threads) {
  if (kernel != 1 && kernel != 3) return DEBLUR_BAD_ARGUMENT;
  const int32_t code = check(n, c, h, w, pixels, index);
  if (code != DEBLUR_OK || pixels * c == 0) return code;
  if (!x || !rows) return DEBLUR_NO_TENSOR;
  // A task gathers one tap of a run of pixels, channel by channel: neighbouring pixels of the list
  // are mostly neighbours in x.
  const int64_t taps = int64_t{kernel} * kernel, radius = kernel / 2;
  deblur::ThreadPool pool(threads);
  deblur::parallel_for(pool, (pixels + kPixels - 1) / kPixels * taps, [&](int64_t task) {
    const int64_t tap = task % taps, first = task / taps * kPixels;
    const int64_t down = tap / kernel - radius, right = tap % kernel - radius;
    for (int64_t channel = 0; channel < c; ++channel)
      for (int64_t p = first; p < std::min(pixels, first + kPixels); ++p) {
        const int64_t image = index[p] / (h * w), pixel = index[p] % (h * w);
        const int64_t row = pixel / w + down, column = pixel % w + right;
        const bool inside = row >= 0 && row < h && column >= 0 && column < w;
        rows[(p * taps + tap) * c + channel] =
            inside ? x[((image * c + channel) * h + row) * w + column] : 0.0f;
      }
  });
  return DEBLUR_OK;
}

int32_t deblur_pixel_scatter(const float* base, const int64_t* index, const float* rows, float* y,
                             int64_t n, int64_t c, int64_t h, int64_t w, int64_t pixels,
                             const deblur_threads* threads) {
  const int32_t code = check(n, c, h, w, pixels, index);
  if (code != DEBLUR_OK || n * c * h * w == 0) return code;
  if (!base || !y || (pixels > 0 && !rows)) return DEBLUR_NO_TENSOR;
  // A task has some channels: it copies them from the base, then overwrites the listed pixels.
  // Tasks never write the same value.
  const int64_t area = h * w;
  deblur::ThreadPool pool(threads);
  deblur::parallel_for(pool, (c + kChannels - 1) / kChannels, [&](int64_t task) {
    const int64_t first = task * kChannels, last = std::min(c, first + kChannels);
    for (int64_t image = 0; image < n; ++image)
      std::copy(base + (image * c + first) * area, base + (image * c + last) * area,
                y + (image * c + first) * area);
    for (int64_t p = 0; p < pixels; ++p) {
      float* pixel = y + index[p] / area * c * area + index[p] % area;
      for (int64_t channel = first; channel < last; ++channel)
        pixel[channel * area] = rows[p * c + channel];
    }
  });
  return DEBLUR_OK;
}
