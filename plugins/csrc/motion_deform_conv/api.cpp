// The functions of MotionDeformConv in deblur_cpu.h: they check their arguments and call the
// kernel.
#include "../common/buffer.h"
#include "../common/sizes.h"
#include "arguments.h"

using deblur::element_count;

int64_t deblur_motion_plan_bytes(int64_t n, int64_t h, int64_t w) {
  if (!deblur::padded_fits(h, w)) return -1;
  return element_count({n, h, w, deblur::kMotionTaps, sizeof(deblur::Sample)});
}

int32_t deblur_motion_plan(const float* offset, void* plan, int64_t n, int64_t h, int64_t w,
                           const deblur_threads* threads) {
  // A task is one image row.
  const int64_t bytes = deblur_motion_plan_bytes(n, h, w);
  if (bytes < 0) return DEBLUR_BAD_SIZE;
  if (bytes == 0) return DEBLUR_OK;
  if (offset == nullptr || plan == nullptr) return DEBLUR_NO_TENSOR;
  deblur::Sample* samples = static_cast<deblur::Sample*>(plan);
  const deblur::ImageSize size = deblur::image_size(h, w);
  deblur::ThreadPool pool(threads);
  deblur::parallel_for(pool, n * h, [&](int64_t row) {
    const int64_t image = row / h, y = row % h;
    deblur::motion_plan(offset + image * 2 * deblur::kMotionTaps * h * w, size, y * w, (y + 1) * w,
                        samples + row * w * deblur::kMotionTaps);
  });
  return DEBLUR_OK;
}

int32_t deblur_motion_deform_conv(int32_t layout, const void* x, const float* offset,
                                  const void* plan, const float* weight, const float* bias, void* y,
                                  int64_t n, int64_t c, int64_t h, int64_t w, int32_t gate,
                                  const deblur_threads* threads) {
  // Attributes, sizes, tensors, in this order: a call without values may have NULL tensors.
  const int64_t values = element_count({n, c, h, w});
  if ((gate != 0 && gate != 1) || layout < DEBLUR_NCHW || layout > DEBLUR_NHWC_BF16)
    return DEBLUR_BAD_ARGUMENT;
  if (values < 0 || !deblur::padded_fits(h, w) || deblur_motion_plan_bytes(n, h, w) < 0)
    return DEBLUR_BAD_SIZE;
  if (gate == 1 && c % 2 != 0) return DEBLUR_BAD_SIZE;
  if (values == 0) return DEBLUR_OK;
  if (!x || !weight || !bias || !y || (!offset && !plan)) return DEBLUR_NO_TENSOR;
  const int64_t bytes = layout == DEBLUR_NHWC_BF16 ? 2 : 4;
  deblur::advise_huge_pages(y, (values >> gate) * bytes);
  const deblur::Sample* samples = static_cast<const deblur::Sample*>(plan);
  const deblur::MotionArguments arguments = {layout, x, offset, weight, bias, samples,
                                             y,      n, c,      h,      w,    gate == 1};
  deblur::ThreadPool pool(threads);
  if (layout != DEBLUR_NCHW) return DEBLUR_DISPATCH(motion_deform_conv_nhwc, arguments, pool);
  return DEBLUR_DISPATCH(motion_deform_conv_nchw, arguments, pool);
}
