// deblur_dynamic_filter of deblur_cpu.h: checks its arguments and calls the kernel.
#include "../common/sizes.h"
#include "arguments.h"

using deblur::element_count;

int32_t deblur_dynamic_filter(const float* x, const float* weight, float* y, int64_t planes,
                              int64_t h, int64_t w, int32_t kernel, const deblur_threads* threads) {
  // Attributes, sizes, tensors, in this order: a call without values may have NULL tensors.
  if (kernel != 3 && kernel != 5) return DEBLUR_BAD_ARGUMENT;
  const int64_t values = element_count({planes, h, w});
  if (values < 0 || element_count({planes, kernel, kernel}) < 0 ||
      element_count({h, w + kernel}) < 0)
    return DEBLUR_BAD_SIZE;
  if (values == 0) return DEBLUR_OK;
  if (!x || !weight || !y) return DEBLUR_NO_TENSOR;
  const deblur::FilterArguments arguments = {x, weight, y, planes, h, w, kernel};
  deblur::ThreadPool pool(threads);
  return DEBLUR_DISPATCH(dynamic_filter, arguments, pool);
}
