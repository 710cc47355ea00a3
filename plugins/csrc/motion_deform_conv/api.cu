// The functions of MotionDeformConv in deblur_cuda.h: they check their arguments and launch the two
// kernels. The workspace is the padded image.
#include "kernel.cuh"

#include "../common/sizes.h"

namespace {

bool fits(int32_t type, int64_t n, int64_t c, int64_t h, int64_t w) {
  return deblur::is_type(type) && deblur::padded_fits(h, w) &&
         deblur::element_count({n, c, h, w}) >= 0 &&
         deblur::element_count({n, c + 8, h + 3, w + 2}) >= 0 &&
         deblur::element_count({n, 18, h, w}) >= 0;
}

}  // namespace

int64_t deblur_cuda_motion_deform_conv_workspace(int32_t type, int64_t n, int64_t c, int64_t h,
                                                 int64_t w, int32_t gate) {
  if (!fits(type, n, c, h, w) || (gate != 0 && gate != 1) || (gate == 1 && c % 2 != 0)) return -1;
  return n * deblur::padded_pixels(deblur::image_size(h, w)) *
         deblur::row_shape(c, gate + 1).row_stride() * deblur::size_of(type);
}

int32_t deblur_cuda_motion_deform_conv(int32_t type, const void* x, const float* offset,
                                       const void* weight, const void* bias, void* y, int64_t n,
                                       int64_t c, int64_t h, int64_t w, int32_t gate,
                                       void* workspace, int64_t workspace_bytes, void* stream) {
  // Attributes, sizes, tensors, workspace, in this order: a call without values needs none of the
  // latter.
  if (!deblur::is_type(type) || (gate != 0 && gate != 1)) return DEBLUR_CUDA_BAD_ARGUMENT;
  if (!fits(type, n, c, h, w) || (gate == 1 && c % 2 != 0)) return DEBLUR_CUDA_BAD_SIZE;
  if (n * c * h * w == 0) return DEBLUR_CUDA_OK;
  if (!x || !offset || !weight || !bias || !y) return DEBLUR_CUDA_NO_TENSOR;
  const int64_t needed = deblur_cuda_motion_deform_conv_workspace(type, n, c, h, w, gate);
  if (const int32_t code = deblur::check_workspace(workspace, workspace_bytes, needed)) return code;
  const deblur::ImageSize size = deblur::image_size(h, w);
  const deblur::RowShape row = deblur::row_shape(c, gate + 1);
  return deblur::with_type(type, [&](auto value) {
    using T = decltype(value);
    // Copy x into the padded image, then sample it.
    T* padded = static_cast<T*>(workspace);
    const deblur::FillPadded<T> fill = {static_cast<const T*>(x), padded, n, size, row};
    const deblur::MotionConv<T> conv = {padded,
                                        offset,
                                        static_cast<const T*>(weight),
                                        static_cast<const T*>(bias),
                                        static_cast<T*>(y),
                                        n,
                                        size,
                                        row};
    deblur::Queue queue(stream);
    queue.launch(fill, fill.blocks());
    queue.launch(conv, conv.blocks());
    return queue.code();
  });
}
