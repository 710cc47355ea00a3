// deblur_cuda_top_pixels of deblur_cuda.h: checks its arguments and launches the kernel.
#include "kernel.cuh"

#include "../common/sizes.h"

using deblur::element_count;
using deblur::Queue;

int32_t deblur_cuda_top_pixels(const float* scores, int64_t* index, int64_t n, int64_t pixels,
                               int64_t count, void* stream) {
  constexpr int64_t kMost = INT64_C(1) << 30;  // pixels are counted in 32 bits
  if (element_count({n, pixels, 2}) < 0 || pixels >= kMost || count < 0 || count > pixels)
    return DEBLUR_CUDA_BAD_SIZE;
  if (n * count == 0) return DEBLUR_CUDA_OK;
  if (!scores || !index) return DEBLUR_CUDA_NO_TENSOR;
  Queue queue(stream);
  queue.launch(deblur::TopPixels{scores, index, pixels, count}, n);
  return queue.code();
}
