#include "../common/sizes.h"
#include "arguments.h"

using deblur::product;

int32_t deblur_dynamic_filter(const float* x, const float* weight, float* y, int64_t planes,
                              int64_t h, int64_t w, int32_t kernel,
                              const deblur_threads* threads) {
  if (kernel != 3 && kernel != 5) return DEBLUR_BAD_ARGUMENT;
  const int64_t values = product({planes, h, w});
  if (values < 0 || product({planes, kernel, kernel}) < 0 || product({h, w + kernel}) < 0)
    return DEBLUR_BAD_SIZE;
  if (values == 0) return DEBLUR_OK;
  if (!x || !weight || !y) return DEBLUR_NO_TENSOR;
  const deblur::FilterArguments arguments = {x, weight, y, planes, h, w, kernel};
  deblur::Team team(threads);
  return DEBLUR_DISPATCH(dynamic_filter, arguments, team);
}
