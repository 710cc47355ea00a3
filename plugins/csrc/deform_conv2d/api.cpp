// deblur_deform_conv2d of deblur_cpu.h, which is both ops: checks its arguments and calls the
// kernel.
#include "../common/buffer.h"
#include "../common/sizes.h"
#include "arguments.h"

using deblur::element_count;

int32_t deblur_deform_conv2d(const float* x, const float* offset, const float* weight,
                             const float* bias, const float* mask, const int64_t* index, float* y,
                             int64_t n, int64_t c, int64_t h, int64_t w, int64_t outputs,
                             int64_t pixels, int32_t kernel, const deblur_threads* threads) {
  // Attributes, then sizes: no product of sizes below may overflow, and packing rounds the channels
  // up.
  if (kernel != 3 && kernel != 5) return DEBLUR_BAD_ARGUMENT;
  const int64_t taps = int64_t{kernel} * kernel, values = element_count({n, outputs, pixels});
  if (values < 0 || !deblur::padded_fits(h, w) || element_count({n, c, h, w}) < 0)
    return DEBLUR_BAD_SIZE;
  if (element_count({n, 2 * taps, pixels}) < 0 || element_count({outputs, c, taps, 64}) < 0)
    return DEBLUR_BAD_SIZE;
  // Nothing to compute: the tensors may be NULL. An image without pixels has nothing to sample.
  if (values == 0) return DEBLUR_OK;
  if (index == nullptr && pixels != h * w) return DEBLUR_BAD_SIZE;
  if (c < 1 || h < 1 || w < 1) return DEBLUR_BAD_SIZE;
  if (!x || !offset || !weight || !bias || !mask || !y) return DEBLUR_NO_TENSOR;
  // The output is written for the first time: large pages save page faults.
  deblur::advise_huge_pages(y, values * static_cast<int64_t>(sizeof(float)));
  const deblur::DeformArguments arguments = {x, offset, weight, bias, mask,    index,  y,
                                             n, c,      h,      w,    outputs, pixels, kernel};
  deblur::ThreadPool pool(threads);
  return DEBLUR_DISPATCH(deform_conv2d, arguments, pool);
}
