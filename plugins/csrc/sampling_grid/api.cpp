// deblur_sampling_grid of deblur_cpu.h. It is limited by memory bandwidth, so that it has no kernel
// for each instruction set.
#include "../common/parallel.h"
#include "../common/sizes.h"

using deblur::element_count;

int32_t deblur_sampling_grid(const float* offset, float* grid, int64_t n, int64_t h, int64_t w,
                             const deblur_threads* threads) {
  constexpr int64_t kTaps = 9;
  const int64_t values = element_count({n, 2 * kTaps, h, w});
  if (values < 0) return DEBLUR_BAD_SIZE;
  if (values == 0) return DEBLUR_OK;
  if (!offset || !grid) return DEBLUR_NO_TENSOR;
  const float height = static_cast<float>(h), width = static_cast<float>(w);
  // A task is one row of one tap.
  deblur::ThreadPool pool(threads);
  deblur::parallel_for(pool, kTaps * n * h, [&](int64_t task) {
    const int64_t y = task % h, image = task / h % n, tap = task / (h * n);
    const float* down = offset + (((image * kTaps + tap) * 2) * h + y) * w;
    const float* right = down + h * w;
    const float row = static_cast<float>(y + tap / 3 - 1);
    float* out = grid + task * w * 2;
    for (int64_t x = 0; x < w; ++x) {
      const float column = static_cast<float>(x + tap % 3 - 1);
      out[2 * x] = ((right[x] + column) * 2.0f + 1.0f) / width - 1.0f;
      out[2 * x + 1] = ((down[x] + row) * 2.0f + 1.0f) / height - 1.0f;
    }
  });
  return DEBLUR_OK;
}
