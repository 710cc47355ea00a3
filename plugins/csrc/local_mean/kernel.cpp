// LocalMean: windows put together from windows of half the size, so that nothing leaves the range
// of x; see plugins/ops/local_mean.py.
#include <atomic>

#include "../common/buffer.h"
#include "arguments.h"

namespace deblur {
namespace DEBLUR_TARGET {

namespace {

int64_t clamped(int64_t i, int64_t last) { return i < 0 ? 0 : i < last ? i : last; }

// The means over `kernel` consecutive vectors of `count`, in place; the mean of all if they are
// fewer. Vectors have `size` elements and lie `size` apart.
int64_t slide(float* x, int64_t count, int64_t kernel, int64_t size) {
  if (count < kernel) {
    for (int64_t i = 1; i < count; ++i)
      for (int64_t j = 0; j < size; ++j) x[j] += x[i * size + j];
    for (int64_t j = 0; j < size; ++j) x[j] /= static_cast<float>(count);
    return 1;
  }
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

void mean_plane(const MeanArguments& a, const float* x, float* y, float* means) {
  for (int64_t i = 0; i < a.h * a.w; ++i) means[i] = x[i];
  int64_t width = 0;
  for (int64_t row = 0; row < a.h; ++row) width = slide(means + row * a.w, a.w, a.kernel, 1);
  const int64_t height = slide(means, a.h, a.kernel, a.w);
  const int64_t top = (a.h - height) / 2, left = (a.w - width) / 2;
  for (int64_t row = 0; row < a.h; ++row) {
    const float* in = means + clamped(row - top, height - 1) * a.w;
    for (int64_t i = 0; i < a.w; ++i) y[row * a.w + i] = in[clamped(i - left, width - 1)];
  }
}

}  // namespace

int32_t local_mean(const MeanArguments& a, Team& team) {
  std::atomic<bool> memory{true};
  parallel_for(team, a.planes, [&](int64_t plane) {
    const Floats means(a.h * a.w);
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
