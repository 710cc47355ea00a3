// The CPU kernel of LocalMean (Chu et al. 2022, arXiv:2112.04491, Sec. 3; plugins/ops/local_mean.py
// has the formula): along each axis a window is put together from two windows of half the size, so
// that no value leaves the range of x.
#include <atomic>

#include "../common/buffer.h"
#include "arguments.h"

namespace deblur {
namespace DEBLUR_TARGET {

namespace {

// i limited to [0, last].
int64_t clamped(int64_t i, int64_t last) { return i < 0 ? 0 : i < last ? i : last; }

// Replaces x, which is `count` consecutive vectors of `size` elements, by the means over `kernel`
// consecutive vectors, element by element; the mean of all if they are fewer. Returns how many
// means there are.
int64_t sliding_mean(float* x, int64_t count, int64_t kernel, int64_t size) {
  if (count < kernel) {
    for (int64_t i = 1; i < count; ++i)
      for (int64_t j = 0; j < size; ++j) x[j] += x[i * size + j];
    for (int64_t j = 0; j < size; ++j) x[j] /= static_cast<float>(count);
    return 1;
  }
  // Windows of three, then of twice the size. A mean only needs values behind its own position, so
  // that it can be written in place.
  count -= 2;
  const float *second = x + size, *third = x + 2 * size;
  for (int64_t i = 0; i < count * size; ++i) x[i] = (x[i] + second[i] + third[i]) * (1.0f / 3.0f);
  for (int64_t width = 3; width < kernel; width *= 2) {
    count -= width;
    const float* later = x + width * size;
    for (int64_t i = 0; i < count * size; ++i) x[i] = (x[i] + later[i]) * 0.5f;
  }
  return count;
}

// One plane x [h, w] -> y [h, w]; means [h, w] is scratch. Along the rows, along the columns, then
// the border is repeated.
void mean_plane(const MeanArguments& a, const float* x, float* y, float* means) {
  for (int64_t i = 0; i < a.h * a.w; ++i) means[i] = x[i];
  int64_t width = 0;
  for (int64_t row = 0; row < a.h; ++row) width = sliding_mean(means + row * a.w, a.w, a.kernel, 1);
  const int64_t height = sliding_mean(means, a.h, a.kernel, a.w);
  const int64_t top = (a.h - height) / 2, left = (a.w - width) / 2;
  for (int64_t row = 0; row < a.h; ++row) {
    const float* in = means + clamped(row - top, height - 1) * a.w;
    for (int64_t i = 0; i < a.w; ++i) y[row * a.w + i] = in[clamped(i - left, width - 1)];
  }
}

}  // namespace

// A task is one plane with its own scratch.
int32_t local_mean(const MeanArguments& a, ThreadPool& pool) {
  std::atomic<bool> memory{true};
  parallel_for(pool, a.planes, [&](int64_t plane) {
    const FloatBuffer means(a.h * a.w);
    if (!means) {
      memory = false;
      return;
    }
    mean_plane(a, a.x + plane * a.h * a.w, a.y + plane * a.h * a.w, means.data());
  });
  return memory ? DEBLUR_OK : DEBLUR_NO_MEMORY;
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
