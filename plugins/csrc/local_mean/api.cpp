#include "../common/sizes.h"
#include "arguments.h"

using deblur::product;

int32_t deblur_local_mean(const float* x, float* y, int64_t planes, int64_t h, int64_t w,
                          int32_t kernel, const deblur_threads* threads) {
  constexpr int32_t kLargest = 384;
  int32_t window = 3;
  while (window < kernel && window < kLargest) window *= 2;
  if (window != kernel) return DEBLUR_BAD_ARGUMENT;
  const int64_t values = product({planes, h, w});
  if (values < 0) return DEBLUR_BAD_SIZE;
  if (values == 0) return DEBLUR_OK;
  if (!x || !y) return DEBLUR_NO_TENSOR;
  const deblur::MeanArguments arguments = {x, y, planes, h, w, kernel};
  deblur::Team team(threads);
  return DEBLUR_DISPATCH(local_mean, arguments, team);
}
