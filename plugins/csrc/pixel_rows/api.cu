// deblur_cuda_pixel_gather and deblur_cuda_pixel_scatter of deblur_cuda.h: they check their
// arguments and launch the kernels.
#include "kernel.cuh"

#include "../common/sizes.h"

using deblur::element_count;
using deblur::Queue;

namespace {

bool rows_fit(int64_t n, int64_t c, int64_t h, int64_t w, int64_t pixels) {
  return element_count({n, c, h, w}) >= 0 && element_count({n, h, w}) >= 0 &&
         element_count({h, w}) >= 0 && element_count({pixels, 9, c}) >= 0;
}

// Calls function(T{}) for an unsigned type of the size of `type`.
template <typename Function>
int32_t with_size(int32_t type, const Function& function) {
  return type == DEBLUR_F32 ? function(uint32_t{}) : function(uint16_t{});
}

}  // namespace

int32_t deblur_cuda_pixel_gather(int32_t type, const void* x, const int64_t* index, void* rows,
                                 int64_t n, int64_t c, int64_t h, int64_t w, int64_t pixels,
                                 int32_t kernel, void* stream) {
  if (!deblur::is_type(type) || (kernel != 1 && kernel != 3)) return DEBLUR_CUDA_BAD_ARGUMENT;
  if (!rows_fit(n, c, h, w, pixels)) return DEBLUR_CUDA_BAD_SIZE;
  if (pixels * c == 0) return DEBLUR_CUDA_OK;
  // The kernel divides by h and w.
  if (h < 1 || w < 1) return DEBLUR_CUDA_BAD_SIZE;
  if (!x || !index || !rows) return DEBLUR_CUDA_NO_TENSOR;
  return with_size(type, [&](auto value) {
    using T = decltype(value);
    const deblur::PixelGather<T> gather = {
        static_cast<const T*>(x), index, static_cast<T*>(rows), n, c, h, w, pixels, kernel};
    Queue queue(stream);
    queue.launch(gather, gather.blocks());
    return queue.code();
  });
}

int32_t deblur_cuda_pixel_scatter(int32_t type, const void* base, const int64_t* index,
                                  const void* rows, void* y, int64_t n, int64_t c, int64_t h,
                                  int64_t w, int64_t pixels, void* stream) {
  if (!deblur::is_type(type)) return DEBLUR_CUDA_BAD_ARGUMENT;
  if (!rows_fit(n, c, h, w, pixels)) return DEBLUR_CUDA_BAD_SIZE;
  if (n * c * h * w == 0) return DEBLUR_CUDA_OK;
  if (!base || !y || (pixels > 0 && (!index || !rows))) return DEBLUR_CUDA_NO_TENSOR;
  return with_size(type, [&](auto value) {
    using T = decltype(value);
    const deblur::PixelScatter<T> scatter = {
        index, static_cast<const T*>(rows), static_cast<T*>(y), n, c, h * w, pixels};
    Queue queue(stream);
    // y is the base but for the listed pixels.
    queue.copy(y, base, n * c * h * w * static_cast<int64_t>(sizeof(T)));
    queue.launch(scatter, scatter.blocks());
    return queue.code();
  });
}
