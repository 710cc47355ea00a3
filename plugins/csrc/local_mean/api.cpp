// deblur_local_mean of deblur_cpu.h: checks its arguments and calls the kernel.
#include "../common/sizes.h"
#include "arguments.h"

using deblur::element_count;

int32_t deblur_local_mean(const float* x, float* y, int64_t planes, int64_t h, int64_t w,
                          int32_t kernel, const deblur_threads* threads) {
  // The windows are 3, 6, 12, ... 384: three pixels, doubled up to seven times.
  constexpr int32_t kLargest = 384;
  int32_t window = 3;
  while (window < kernel && window < kLargest) window *= 2;
  if (window != kernel) return DEBLUR_BAD_ARGUMENT;
  const int64_t values = element_count({planes, h, w});
  if (values < 0) return DEBLUR_BAD_SIZE;
  if (values == 0) return DEBLUR_OK;
  if (!x || !y) return DEBLUR_NO_TENSOR;
  const deblur::MeanArguments arguments = {x, y, planes, h, w, kernel};
  deblur::ThreadPool pool(threads);
  return DEBLUR_DISPATCH(local_mean, arguments, pool);
}
