#include "../common/sizes.h"
#include "filter.cuh"
#include "mean.cuh"
#include "top.cuh"

using deblur::product;
using deblur::Queue;

int32_t deblur_cuda_dynamic_filter(int32_t type, const void* x, const void* weight, void* y,
                                   int64_t planes, int64_t h, int64_t w, int32_t kernel,
                                   void* stream) {
  if (!deblur::is_type(type) || (kernel != 3 && kernel != 5)) return DEBLUR_CUDA_BAD_ARGUMENT;
  const int64_t values = product({planes, h, w});
  if (values < 0 || product({planes, kernel, kernel}) < 0) return DEBLUR_CUDA_BAD_SIZE;
  if (values == 0) return DEBLUR_CUDA_OK;
  if (!x || !weight || !y) return DEBLUR_CUDA_NO_TENSOR;
  return deblur::with_type(type, [&](auto value) {
    using T = decltype(value);
    const deblur::DynamicFilter<T> filter = {
        static_cast<const T*>(x), static_cast<const T*>(weight), static_cast<T*>(y), planes, h, w,
        kernel};
    Queue queue(stream);
    queue.launch(filter, filter.blocks());
    return queue.code();
  });
}

int64_t deblur_cuda_local_mean_workspace(int64_t planes, int64_t h, int64_t w) {
  return product({planes, h, w, 4});
}

int32_t deblur_cuda_local_mean(int32_t type, const void* x, void* y, int64_t planes, int64_t h,
                               int64_t w, int32_t kernel, void* workspace, int64_t workspace_bytes,
                               void* stream) {
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
    float* means = static_cast<float*>(workspace);
    const deblur::SlideMean<T, float, false> along = {static_cast<const T*>(x), means, planes, h, w,
                                                      kernel};
    const deblur::SlideMean<float, T, true> down = {means, static_cast<T*>(y), planes, h, w,
                                                    kernel};
    Queue queue(stream);
    queue.launch(along, along.blocks());
    queue.launch(down, down.blocks());
    return queue.code();
  });
}

int32_t deblur_cuda_sampling_grid(const float* offset, float* grid, int64_t n, int64_t h, int64_t w,
                                  void* stream) {
  const int64_t values = product({n, 18, h, w});
  if (values < 0) return DEBLUR_CUDA_BAD_SIZE;
  if (values == 0) return DEBLUR_CUDA_OK;
  if (!offset || !grid) return DEBLUR_CUDA_NO_TENSOR;
  const deblur::SamplingGrid kernel = {offset, grid, n, h, w};
  Queue queue(stream);
  queue.launch(kernel, kernel.blocks());
  return queue.code();
}

namespace {

bool rows_fit(int64_t n, int64_t c, int64_t h, int64_t w, int64_t pixels) {
  return product({n, c, h, w}) >= 0 && product({n, h, w}) >= 0 && product({h, w}) >= 0 &&
         product({pixels, 9, c}) >= 0;
}

// function(T{}) for a type of the size of `type`.
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
  if (h < 1 || w < 1) return DEBLUR_CUDA_BAD_SIZE;
  if (!x || !index || !rows) return DEBLUR_CUDA_NO_TENSOR;
  return with_size(type, [&](auto value) {
    using T = decltype(value);
    const deblur::PixelGather<T> gather = {static_cast<const T*>(x), index, static_cast<T*>(rows),
                                           n, c, h, w, pixels, kernel};
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
    const deblur::PixelScatter<T> scatter = {index, static_cast<const T*>(rows), static_cast<T*>(y),
                                             n, c, h * w, pixels};
    Queue queue(stream);
    queue.copy(y, base, n * c * h * w * static_cast<int64_t>(sizeof(T)));
    queue.launch(scatter, scatter.blocks());
    return queue.code();
  });
}

int32_t deblur_cuda_top_pixels(const float* scores, int64_t* index, int64_t n, int64_t pixels,
                               int64_t count, void* stream) {
  constexpr int64_t kMost = INT64_C(1) << 30;  // pixels are counted in 32 bits
  if (product({n, pixels, 2}) < 0 || pixels >= kMost || count < 0 || count > pixels)
    return DEBLUR_CUDA_BAD_SIZE;
  if (n * count == 0) return DEBLUR_CUDA_OK;
  if (!scores || !index) return DEBLUR_CUDA_NO_TENSOR;
  Queue queue(stream);
  queue.launch(deblur::TopPixels{scores, index, pixels, count}, n);
  return queue.code();
}
