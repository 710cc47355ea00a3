#include "../common/buffer.h"
#include "../common/sizes.h"
#include "arguments.h"

using deblur::product;

int64_t deblur_motion_plan_bytes(int64_t n, int64_t h, int64_t w) {
  if (!deblur::canvas_fits(h, w)) return -1;
  return product({n, h, w, deblur::kMotionTaps, sizeof(deblur::Sample)});
}

int32_t deblur_motion_plan(const float* offset, void* plan, int64_t n, int64_t h, int64_t w,
                           const deblur_threads* threads) {
  const int64_t bytes = deblur_motion_plan_bytes(n, h, w);
  if (bytes < 0) return DEBLUR_BAD_SIZE;
  if (bytes == 0) return DEBLUR_OK;
  if (offset == nullptr || plan == nullptr) return DEBLUR_NO_TENSOR;
  deblur::Sample* samples = static_cast<deblur::Sample*>(plan);
  const deblur::Canvas canvas = {static_cast<int32_t>(h), static_cast<int32_t>(w)};
  deblur::Team team(threads);
  deblur::parallel_for(team, n * h, [&](int64_t row) {
    const int64_t image = row / h, y = row % h;
    deblur::motion_plan(offset + image * 2 * deblur::kMotionTaps * h * w, canvas, y * w,
                        (y + 1) * w, samples + row * w * deblur::kMotionTaps);
  });
  return DEBLUR_OK;
}

int32_t deblur_motion_deform_conv(int32_t features, const void* x, const float* offset,
                                  const void* plan, const float* weight, const float* bias, void* y,
                                  int64_t n, int64_t c, int64_t h, int64_t w, int32_t gate,
                                  const deblur_threads* threads) {
  const int64_t values = product({n, c, h, w});
  if ((gate != 0 && gate != 1) || features < DEBLUR_FIRST || features > DEBLUR_LAST_BF16)
    return DEBLUR_BAD_ARGUMENT;
  if (values < 0 || !deblur::canvas_fits(h, w) || deblur_motion_plan_bytes(n, h, w) < 0)
    return DEBLUR_BAD_SIZE;
  if (gate == 1 && c % 2 != 0) return DEBLUR_BAD_SIZE;
  if (values == 0) return DEBLUR_OK;
  if (!x || !weight || !bias || !y || (!offset && !plan)) return DEBLUR_NO_TENSOR;
  const int64_t bytes = features == DEBLUR_LAST_BF16 ? 2 : 4;
  deblur::expect_large(y, (values >> gate) * bytes);
  const deblur::Sample* samples = static_cast<const deblur::Sample*>(plan);
  const deblur::MotionArguments arguments = {features, x, offset, weight, bias,      samples,
                                             y,        n, c,      h,      w,    gate == 1};
  deblur::Team team(threads);
  if (features != DEBLUR_FIRST) return DEBLUR_DISPATCH(motion_deform_conv_last, arguments, team);
  return DEBLUR_DISPATCH(motion_deform_conv, arguments, team);
}
