// deblur_cuda_dynamic_filter of deblur_cuda.h: checks its arguments and launches the kernel.
#include "kernel.cuh"

#include "../common/sizes.h"

using deblur::element_count;
using deblur::Queue;

int32_t deblur_cuda_dynamic_filter(int32_t type, const void* x, const void* weight, void* y,
                                   int64_t planes, int64_t h, int64_t w, int32_t kernel,
                                   void* stream) {
  // Attributes, sizes, tensors, in this order: a call without values may have NULL tensors.
  if (!deblur::is_type(type) || (kernel != 3 && kernel != 5)) return DEBLUR_CUDA_BAD_ARGUMENT;
  const int64_t values = element_count({planes, h, w});
  if (values < 0 || element_count({planes, kernel, kernel}) < 0) return DEBLUR_CUDA_BAD_SIZE;
  if (values == 0) return DEBLUR_CUDA_OK;
  if (!x || !weight || !y) return DEBLUR_CUDA_NO_TENSOR;
  return deblur::with_type(type, [&](auto value) {
    using T = decltype(value);
    const deblur::DynamicFilter<T> filter = {static_cast<const T*>(x),
                                             static_cast<const T*>(weight),
                                             static_cast<T*>(y),
                                             planes,
                                             h,
                                             w,
                                             kernel};
    Queue queue(stream);
    queue.launch(filter, filter.blocks());
    return queue.code();
  });
}
