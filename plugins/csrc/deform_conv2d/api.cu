// The functions of DeformConv2d and DeformConv2dAt in deblur_cuda.h: they check their arguments,
// divide the workspace and launch the kernels.
#include "kernel.cuh"

#include "../common/sizes.h"

namespace {

using deblur::element_count;

bool fits(int32_t type, int64_t n, int64_t c, int64_t h, int64_t w, int64_t outputs,
          int32_t kernel) {
  const int64_t taps = int64_t{kernel} * kernel;
  return deblur::is_type(type) && (kernel == 3 || kernel == 5) && deblur::padded_fits(h, w) &&
         element_count({n, c, h, w}) >= 0 && element_count({n, c + 32, h + 3, w + 2}) >= 0 &&
         element_count({outputs, c + 32, taps}) >= 0;
}

// The parts of the workspace: the padded image and the packed weights.
template <typename T>
struct Parts {
  Parts(deblur::Workspace& memory, int64_t n, int64_t c, int64_t h, int64_t w, int64_t outputs,
        int32_t kernel)
      : stride(deblur::round_up(c, deblur::kTileK)),
        size(deblur::image_size(h, w)),
        padded(memory.take<T>(n * deblur::padded_pixels(size) * stride)),
        weight(memory.take<T>(outputs * kernel * kernel * stride)) {}
  int64_t stride;
  deblur::ImageSize size;
  T *padded, *weight;
};

}  // namespace

int64_t deblur_cuda_deform_conv2d_workspace(int32_t type, int64_t n, int64_t c, int64_t h,
                                            int64_t w, int64_t outputs, int32_t kernel) {
  if (!fits(type, n, c, h, w, outputs, kernel)) return -1;
  deblur::Workspace memory;
  deblur::with_type(type, [&](auto value) {
    Parts<decltype(value)>(memory, n, c, h, w, outputs, kernel);
    return DEBLUR_CUDA_OK;
  });
  return memory.bytes();
}

int32_t deblur_cuda_deform_conv2d(int32_t type, const void* x, const float* offset,
                                  const void* weight, const void* bias, const void* mask,
                                  const int64_t* index, void* y, int64_t n, int64_t c, int64_t h,
                                  int64_t w, int64_t outputs, int64_t pixels, int32_t kernel,
                                  void* workspace, int64_t workspace_bytes, void* stream) {
  // Attributes, sizes, tensors, workspace, in this order: a call without outputs needs none of the
  // latter.
  if (!deblur::is_type(type) || (kernel != 3 && kernel != 5)) return DEBLUR_CUDA_BAD_ARGUMENT;
  const int64_t values = element_count({n, outputs, pixels}), taps = int64_t{kernel} * kernel;
  if (!fits(type, n, c, h, w, outputs, kernel) || values < 0) return DEBLUR_CUDA_BAD_SIZE;
  if (element_count({n, 2 * taps, pixels}) < 0) return DEBLUR_CUDA_BAD_SIZE;
  if (values == 0) return DEBLUR_CUDA_OK;
  if ((index == nullptr && pixels != h * w) || c < 1 || h < 1 || w < 1) return DEBLUR_CUDA_BAD_SIZE;
  if (!x || !offset || !weight || !bias || !mask || !y) return DEBLUR_CUDA_NO_TENSOR;
  const int64_t needed = deblur_cuda_deform_conv2d_workspace(type, n, c, h, w, outputs, kernel);
  if (const int32_t code = deblur::check_workspace(workspace, workspace_bytes, needed)) return code;
  return deblur::with_type(type, [&](auto value) {
    using T = decltype(value);
    deblur::Workspace memory(workspace);
    // Copy x into the padded image, pack the weights, then multiply.
    const Parts<T> parts(memory, n, c, h, w, outputs, kernel);
    const deblur::RowShape row = {1, c, parts.stride};
    const deblur::FillPadded<T> fill = {static_cast<const T*>(x), parts.padded, n, parts.size, row};
    const deblur::PackWeights<T> pack = {
        static_cast<const T*>(weight), parts.weight, outputs, c, taps, parts.stride};
    const deblur::DeformGemm<T> conv = {parts.padded,
                                        parts.weight,
                                        static_cast<const T*>(bias),
                                        static_cast<const T*>(mask),
                                        offset,
                                        index,
                                        static_cast<T*>(y),
                                        n,
                                        outputs,
                                        pixels,
                                        parts.size,
                                        parts.stride,
                                        kernel};
    deblur::Queue queue(stream);
    queue.launch(fill, fill.blocks());
    queue.launch(pack, pack.blocks());
    queue.launch(conv, conv.blocks());
    return queue.code();
  });
}
