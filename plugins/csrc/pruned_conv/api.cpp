// deblur_pruned_conv of deblur_cpu.h: checks its arguments and calls the kernel.
#include "../common/buffer.h"
#include "../common/sizes.h"
#include "arguments.h"

int32_t deblur_pruned_conv(int32_t layout, const void* x, const float* mask, const float* weight1,
                           const float* bias1, const float* weight2, const float* bias2, void* y,
                           int64_t n, int64_t c, int64_t h, int64_t w,
                           const deblur_threads* threads) {
  using deblur::element_count;
  constexpr int64_t kMostPixels = INT64_C(1) << 30;  // pixel numbers are 32-bit
  const int64_t values = element_count({n, c, h, w});
  if (layout < DEBLUR_NCHW || layout > DEBLUR_NHWC_BF16) return DEBLUR_BAD_ARGUMENT;
  if (values < 0 || element_count({c, c, 2}) < 0) return DEBLUR_BAD_SIZE;
  if (h >= kMostPixels || w >= kMostPixels || (h + 2) * (w + 2) >= kMostPixels)
    return DEBLUR_BAD_SIZE;
  if (values == 0) return DEBLUR_OK;
  if (!x || !mask || !weight1 || !bias1 || !weight2 || !bias2 || !y) return DEBLUR_NO_TENSOR;
  deblur::advise_huge_pages(y, values * (layout == DEBLUR_NHWC_BF16 ? 2 : 4));
  const deblur::PrunedArguments arguments = {layout, x, mask, weight1, bias1, weight2,
                                             bias2,  y, n,    c,       h,     w};
  deblur::ThreadPool pool(threads);
  return DEBLUR_DISPATCH(pruned_conv, arguments, pool);
}
