// deblur_cuda_sampling_grid of deblur_cuda.h: checks its arguments and launches the kernel.
#include "kernel.cuh"

#include "../common/sizes.h"

using deblur::element_count;
using deblur::Queue;

int32_t deblur_cuda_sampling_grid(const float* offset, float* grid, int64_t n, int64_t h, int64_t w,
                                  void* stream) {
  const int64_t values = element_count({n, 18, h, w});
  if (values < 0) return DEBLUR_CUDA_BAD_SIZE;
  if (values == 0) return DEBLUR_CUDA_OK;
  if (!offset || !grid) return DEBLUR_CUDA_NO_TENSOR;
  const deblur::SamplingGrid kernel = {offset, grid, n, h, w};
  Queue queue(stream);
  queue.launch(kernel, kernel.blocks());
  return queue.code();
}
