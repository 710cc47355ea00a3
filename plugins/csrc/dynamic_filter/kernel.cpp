// DynamicFilter: every plane with a filter of its own, mirrored at the border.
#include <atomic>

#include "../common/buffer.h"
#include "arguments.h"

namespace deblur {
namespace DEBLUR_TARGET {

namespace {

// Where a position beyond the border lies, to and fro.
int64_t mirrored(int64_t position, int64_t size) {
  const int64_t span = 2 * (size - 1);
  if (span == 0) return 0;
  const int64_t phase = ((position % span) + span) % span;
  return phase < span - phase ? phase : span - phase;
}

void filter_plane(const FilterArguments& a, const float* x, const float* weight, float* y,
                  float* wide) {
  const int64_t margin = a.kernel / 2, width = a.w + 2 * margin;
  for (int64_t row = 0; row < a.h; ++row) {
    float* out = wide + row * width;
    const float* in = x + row * a.w;
    for (int64_t i = 0; i < a.w; ++i) out[margin + i] = in[i];
    for (int64_t i = 0; i < margin; ++i) {
      out[i] = in[mirrored(i - margin, a.w)];
      out[margin + a.w + i] = in[mirrored(a.w + i, a.w)];
    }
  }
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

int32_t dynamic_filter(const FilterArguments& a, Team& team) {
  std::atomic<bool> memory{true};
  parallel_for(team, a.planes, [&](int64_t plane) {
    const Floats wide(a.h * (a.w + a.kernel));
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
