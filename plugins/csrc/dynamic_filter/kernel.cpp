// The CPU kernel of DynamicFilter3 and DynamicFilter5, the dynamic low-pass of FSNet (Cui et al.,
// "Image Restoration via Frequency Selection", TPAMI 2024): every plane has a filter of its own,
// and the image is mirrored at its border.
#include <atomic>

#include "../common/buffer.h"
#include "arguments.h"

namespace deblur {
namespace DEBLUR_TARGET {

namespace {

// The position that is mirrored to `position`, which may lie any distance beyond the border [0,
// size). The last pixel is not repeated.
int64_t mirrored(int64_t position, int64_t size) {
  const int64_t span = 2 * (size - 1);
  if (span == 0) return 0;
  const int64_t phase = ((position % span) + span) % span;
  return phase < span - phase ? phase : span - phase;
}

// One plane x [h, w] -> y [h, w]; weight [kernel^2]; wide [h, w + 2 margin] is scratch.
void filter_plane(const FilterArguments& a, const float* x, const float* weight, float* y,
                  float* wide) {
  const int64_t margin = a.kernel / 2, width = a.w + 2 * margin;
  // Copy the rows with their margins mirrored, so that the loops below need no special case.
  for (int64_t row = 0; row < a.h; ++row) {
    float* out = wide + row * width;
    const float* in = x + row * a.w;
    for (int64_t i = 0; i < a.w; ++i) out[margin + i] = in[i];
    for (int64_t i = 0; i < margin; ++i) {
      out[i] = in[mirrored(i - margin, a.w)];
      out[margin + a.w + i] = in[mirrored(a.w + i, a.w)];
    }
  }
  // Add up the taps, one after the other over a whole row: the compiler vectorises the inner loop.
  for (int64_t row = 0; row < a.h; ++row) {
    float* out = y + row * a.w;
    for (int64_t i = 0; i < a.w; ++i) out[i] = 0.0f;
    for (int64_t tap = 0; tap < a.kernel * a.kernel; ++tap) {
      const int64_t from = mirrored(row + tap / a.kernel - margin, a.h);
      const float* in = wide + from * width + tap % a.kernel;
      const float factor = weight[tap];
      for (int64_t i = 0; i < a.w; ++i) out[i] += factor * in[i];
    }
  }
}

}  // namespace

// A task is one plane with its own copy of the rows. Other planes go on where memory is short; the
// result is then an error.
int32_t dynamic_filter(const FilterArguments& a, ThreadPool& pool) {
  std::atomic<bool> memory{true};
  parallel_for(pool, a.planes, [&](int64_t plane) {
    const FloatBuffer wide(a.h * (a.w + a.kernel));
    if (!wide) {
      memory = false;
      return;
    }
    const int64_t first = plane * a.h * a.w;
    filter_plane(a, a.x + first, a.weight + plane * a.kernel * a.kernel, a.y + first, wide.data());
  });
  return memory ? DEBLUR_OK : DEBLUR_NO_MEMORY;
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
