// The functions of LocalMean in deblur_cuda.h: they check their arguments and launch the kernel for
// the rows, then for the columns. The workspace is the float32 result of the rows.
#include "kernel.cuh"

#include "../common/sizes.h"

using deblur::element_count;
using deblur::Queue;

int64_t deblur_cuda_local_mean_workspace(int64_t planes, int64_t h, int64_t w) {
  return element_count({planes, h, w, 4});
}

int32_t deblur_cuda_local_mean(int32_t type, const void* x, void* y, int64_t planes, int64_t h,
                               int64_t w, int32_t kernel, void* workspace, int64_t workspace_bytes,
                               void* stream) {
  // The windows are 3, 6, 12, ... 384: three pixels, doubled up to seven times.
  int32_t window = 3;
  while (window < kernel && window < deblur::kLargestWindow) window *= 2;
  if (!deblur::is_type(type) || window != kernel) return DEBLUR_CUDA_BAD_ARGUMENT;
  const int64_t needed = deblur_cuda_local_mean_workspace(planes, h, w);
  if (needed < 0) return DEBLUR_CUDA_BAD_SIZE;
  if (needed == 0) return DEBLUR_CUDA_OK;
  if (!x || !y) return DEBLUR_CUDA_NO_TENSOR;
  if (const int32_t code = deblur::check_workspace(workspace, workspace_bytes, needed)) return code;
  return deblur::with_type(type, [&](auto value) {
    using T = decltype(value);
    // The rows, then the columns, with float32 in between whatever the type is.
    float* means = static_cast<float*>(workspace);
    const deblur::SlideMean<T, float, false> along = {
        static_cast<const T*>(x), means, planes, h, w, kernel};
    const deblur::SlideMean<float, T, true> down = {means, static_cast<T*>(y), planes, h, w,
                                                    kernel};
    Queue queue(stream);
    queue.launch(along, along.blocks());
    queue.launch(down, down.blocks());
    return queue.code();
  });
}
