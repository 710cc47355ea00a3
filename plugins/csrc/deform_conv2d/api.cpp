#include "../common/buffer.h"
#include "../common/sizes.h"
#include "arguments.h"

using deblur::product;

int32_t deblur_deform_conv2d(const float* x, const float* offset, const float* weight,
                             const float* bias, const float* mask, const int64_t* index, float* y,
                             int64_t n, int64_t c, int64_t h, int64_t w, int64_t outputs,
                             int64_t pixels, int32_t kernel, const deblur_threads* threads) {
  if (kernel != 3 && kernel != 5) return DEBLUR_BAD_ARGUMENT;
  const int64_t taps = int64_t{kernel} * kernel, values = product({n, outputs, pixels});
  if (values < 0 || !deblur::canvas_fits(h, w) || product({n, c, h, w}) < 0) return DEBLUR_BAD_SIZE;
  if (product({n, 2 * taps, pixels}) < 0 || product({outputs, c, taps, 64}) < 0)
    return DEBLUR_BAD_SIZE;
  if (values == 0) return DEBLUR_OK;
  if (index == nullptr && pixels != h * w) return DEBLUR_BAD_SIZE;
  if (c < 1 || h < 1 || w < 1) return DEBLUR_BAD_SIZE;
  if (!x || !offset || !weight || !bias || !mask || !y) return DEBLUR_NO_TENSOR;
  deblur::expect_large(y, values * static_cast<int64_t>(sizeof(float)));
  const deblur::DeformArguments arguments = {x, offset, weight, bias, mask,    index,  y,
                                             n, c,      h,      w,    outputs, pixels, kernel};
  deblur::Team team(threads);
  return DEBLUR_DISPATCH(deform_conv2d, arguments, team);
}
