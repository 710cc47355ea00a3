// CUDA kernels of the custom ops of domain `deblur`: plain C functions that queue work on a stream.
//
// Tensors are dense and row-major, in device memory, aligned to their elements. Inputs are never
// written, and no output overlaps an input. `type` says what a tensor of type `void` holds (what
// the specifications of the ops call T); `float` tensors are float32 with every type. Sums and
// states are float32 with every type.
//
// Nothing is allocated and nothing waits for the device. What is queued depends on the sizes alone,
// so that every call can be captured into a CUDA graph. A workspace is device memory, aligned to 16
// bytes, that nobody else uses until the queued work is done. ..._workspace(...) says how many
// bytes it needs: 0 for none, negative for sizes that are refused. It needs no device, and never
// shrinks when a size grows. `stream` is a cudaStream_t of the current device; NULL is the default
// stream.
//
// Every function returns 0 or an error code; after an error, part of the work may have been queued.
//
// What the ops compute, and the papers they come from, is written in plugins/ops/<op>.py.
#ifndef DEBLUR_CUDA_H
#define DEBLUR_CUDA_H

#include <stdint.h>

#if defined(_WIN32)
#define DEBLUR_CUDA_API __declspec(dllexport)
#else
#define DEBLUR_CUDA_API __attribute__((visibility("default")))
#endif

// Changes whenever a signature or the meaning of an argument does.
#define DEBLUR_CUDA_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

enum { DEBLUR_F32 = 0, DEBLUR_F16 = 1, DEBLUR_BF16 = 2 };

// The first five mean what they mean in deblur_cpu.h.
enum {
  DEBLUR_CUDA_OK = 0,
  DEBLUR_CUDA_BAD_SIZE = 1,      // a size is negative, zero where it must not be, or too large
  DEBLUR_CUDA_NO_TENSOR = 2,     // a required tensor is NULL
  DEBLUR_CUDA_BAD_ARGUMENT = 3,  // an attribute or `type` has no such value
  DEBLUR_CUDA_NO_WORKSPACE = 4,  // the workspace is missing, too small or not aligned
  DEBLUR_CUDA_RUNTIME = 1000,    // plus the cudaError_t that a launch ended with
};

DEBLUR_CUDA_API int32_t deblur_cuda_version(void);
DEBLUR_CUDA_API const char* deblur_cuda_error_text(int32_t code);

// SelectiveScan (Gu and Dao 2023, arXiv:2312.00752, Alg. 2). u, z and y [n, d, length], B and C
// [n, states, length] of `type`; delta [n, d, length], A [d, states], D and delta_bias [d] float32.
// z and delta_bias may be NULL. 1 to 64 states. delta_softplus 0 or 1.
DEBLUR_CUDA_API int64_t deblur_cuda_selective_scan_workspace(int32_t type, int64_t n, int64_t d,
                                                             int64_t states, int64_t length);
DEBLUR_CUDA_API int32_t deblur_cuda_selective_scan(int32_t type, const void* u, const float* delta,
                                                   const float* A, const void* B, const void* C,
                                                   const float* D, const void* z,
                                                   const float* delta_bias, void* y, int64_t n,
                                                   int64_t d, int64_t states, int64_t length,
                                                   int32_t delta_softplus, void* workspace,
                                                   int64_t workspace_bytes, void* stream);

// MotionDeformConv (M2AENet, arXiv:2507.07708, Sec. 3.3). x [n, c, h, w], weight [c, 9], bias [c]
// of `type`; offset [n, 18, h, w] float32, (dy, dx) of each tap. y of `type`: with gate 0 [n, c, h,
// w]; with gate 1 [n, c / 2, h, w], the product of the two halves of the channels, and c is even.
DEBLUR_CUDA_API int64_t deblur_cuda_motion_deform_conv_workspace(int32_t type, int64_t n, int64_t c,
                                                                 int64_t h, int64_t w,
                                                                 int32_t gate);
DEBLUR_CUDA_API int32_t deblur_cuda_motion_deform_conv(int32_t type, const void* x,
                                                       const float* offset, const void* weight,
                                                       const void* bias, void* y, int64_t n,
                                                       int64_t c, int64_t h, int64_t w,
                                                       int32_t gate, void* workspace,
                                                       int64_t workspace_bytes, void* stream);

// DeformConv2d (index NULL, pixels = h * w) and DeformConv2dAt (Zhu et al. 2019, arXiv:1811.11168,
// Eq. 1). x [n, c, h, w], weight [outputs, c, kernel, kernel], bias [outputs], mask [n, kernel^2,
// pixels], y [n, outputs, pixels] of `type`; offset [n, 2 * kernel^2, pixels] float32; index [n,
// pixels], pixel numbers y * w + x; kernel 3 or 5. A number outside the image stands for a pixel as
// far outside.
DEBLUR_CUDA_API int64_t deblur_cuda_deform_conv2d_workspace(int32_t type, int64_t n, int64_t c,
                                                            int64_t h, int64_t w, int64_t outputs,
                                                            int32_t kernel);
DEBLUR_CUDA_API int32_t deblur_cuda_deform_conv2d(int32_t type, const void* x, const float* offset,
                                                  const void* weight, const void* bias,
                                                  const void* mask, const int64_t* index, void* y,
                                                  int64_t n, int64_t c, int64_t h, int64_t w,
                                                  int64_t outputs, int64_t pixels, int32_t kernel,
                                                  void* workspace, int64_t workspace_bytes,
                                                  void* stream);

// PrunedConv (M2AENet, arXiv:2507.07708, Eq. 5) by gathered rows, whatever the mask covers; the
// number of rows stays on the device. x and y [n, c, h, w], mask [n, 1, h, w] (above 0.5:
// computed), weight1 [2c, c], bias1 [2c], weight2 [2c, 9], bias2 [2c], all of `type`. Where the
// mask covers most of the image, a dense convolution is the caller's choice.
DEBLUR_CUDA_API int64_t deblur_cuda_pruned_conv_workspace(int32_t type, int64_t n, int64_t c,
                                                          int64_t h, int64_t w);
DEBLUR_CUDA_API int32_t deblur_cuda_pruned_conv(int32_t type, const void* x, const void* mask,
                                                const void* weight1, const void* bias1,
                                                const void* weight2, const void* bias2, void* y,
                                                int64_t n, int64_t c, int64_t h, int64_t w,
                                                void* workspace, int64_t workspace_bytes,
                                                void* stream);

// DynamicFilter3 and DynamicFilter5. x and y [planes, h, w], mirrored at the border; weight
// [planes, kernel^2]; all of `type`; kernel 3 or 5.
DEBLUR_CUDA_API int32_t deblur_cuda_dynamic_filter(int32_t type, const void* x, const void* weight,
                                                   void* y, int64_t planes, int64_t h, int64_t w,
                                                   int32_t kernel, void* stream);

// LocalMean. x and y [planes, h, w] of `type`; kernel 3, 6, 12, ... 384.
DEBLUR_CUDA_API int64_t deblur_cuda_local_mean_workspace(int64_t planes, int64_t h, int64_t w);
DEBLUR_CUDA_API int32_t deblur_cuda_local_mean(int32_t type, const void* x, void* y, int64_t planes,
                                               int64_t h, int64_t w, int32_t kernel,
                                               void* workspace, int64_t workspace_bytes,
                                               void* stream);

// SamplingGrid. offset [n, 18, h, w]; grid [9, n, h, w, 2]; float32.
DEBLUR_CUDA_API int32_t deblur_cuda_sampling_grid(const float* offset, float* grid, int64_t n,
                                                  int64_t h, int64_t w, void* stream);

// PixelGather and PixelScatter. x, base and y [n, c, h, w] and rows [pixels, kernel^2 * c], tap by
// tap, of `type`; index [pixels], numbers (image * h + y) * w + x; kernel 1 or 3, and 1 for
// PixelScatter. For a number outside the images, PixelGather writes a row of zeros and PixelScatter
// nothing. PixelScatter accepts every number at most once.
DEBLUR_CUDA_API int32_t deblur_cuda_pixel_gather(int32_t type, const void* x, const int64_t* index,
                                                 void* rows, int64_t n, int64_t c, int64_t h,
                                                 int64_t w, int64_t pixels, int32_t kernel,
                                                 void* stream);
DEBLUR_CUDA_API int32_t deblur_cuda_pixel_scatter(int32_t type, const void* base,
                                                  const int64_t* index, const void* rows, void* y,
                                                  int64_t n, int64_t c, int64_t h, int64_t w,
                                                  int64_t pixels, void* stream);

// TopPixels. scores [n, pixels] float32, of which NaN is the lowest; index [n, count], ascending;
// of equal scores the lower number first.
DEBLUR_CUDA_API int32_t deblur_cuda_top_pixels(const float* scores, int64_t* index, int64_t n,
                                               int64_t pixels, int64_t count, void* stream);

#ifdef __cplusplus
}
#endif

#endif
