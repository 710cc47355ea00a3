// Native CPU kernels of the custom ops of domain `deblur`: plain C functions.
//
// Tensors are dense and row-major and need no alignment beyond that of their elements; they hold
// float32 but where `layout` says bfloat16. Inputs are never written, and no output overlaps an
// input. Every function returns 0 or an error code, and computes nothing where it returns an error.
// All of them may run at the same time in several threads. The environment variable DEBLUR_ISA
// (scalar, avx2, avx512, avx512_bf16) asks for an instruction set; one that the processor lacks is
// not used.
//
// What the ops compute, and the papers they come from, is written in plugins/ops/<op>.py.
#ifndef DEBLUR_CPU_H
#define DEBLUR_CPU_H

#include <stdint.h>

#if defined(_WIN32)
#define DEBLUR_API __declspec(dllexport)
#else
#define DEBLUR_API __attribute__((visibility("default")))
#endif

// Changes whenever a signature or the meaning of an argument does.
#define DEBLUR_CPU_VERSION 2

#ifdef __cplusplus
extern "C" {
#endif

enum {
  DEBLUR_OK = 0,
  DEBLUR_BAD_SIZE = 1,      // a size is negative, zero or odd where it must not be, or too large
  DEBLUR_NO_TENSOR = 2,     // a required tensor is NULL
  DEBLUR_BAD_ARGUMENT = 3,  // an attribute has no such value
  DEBLUR_NO_MEMORY = 4,
  DEBLUR_BAD_NUMBER = 5,  // a pixel number lies outside the images
};

// The layout and type of the feature maps (x; u, delta, B, C, z) and of y, for ops with an argument
// `layout`. DEBLUR_NCHW: the channels before the pixels, as is written at the op. DEBLUR_NHWC: the
// channels last, [n, h, w, c]; for SelectiveScan [n, length, d] and [n, length, states].
// DEBLUR_NHWC_BF16: the same in bfloat16. All other tensors are float32 in the layout written.
enum { DEBLUR_NCHW = 0, DEBLUR_NHWC = 1, DEBLUR_NHWC_BF16 = 2 };

// Where the work runs. `run` NULL: on `count` threads that the call starts and joins, of which the
// caller's is one. Otherwise on the threads of a runtime: run(runtime, tasks, task, data) calls
// task( data, i) once for every i < tasks, on any threads, in any order, and returns when all are
// done; `count` says how many threads it has. A NULL deblur_threads means one thread.
typedef struct deblur_threads {
  int64_t count;
  void (*run)(void* runtime, int64_t tasks, void (*task)(void* data, int64_t index), void* data);
  void* runtime;
} deblur_threads;

DEBLUR_API int32_t deblur_version(void);
DEBLUR_API const char* deblur_instruction_set(void);   // the one in use, such as "avx512"
DEBLUR_API const char* deblur_instruction_sets(void);  // those in the library, with spaces between
DEBLUR_API const char* deblur_error_text(int32_t code);

// SelectiveScan (Gu and Dao 2023, arXiv:2312.00752, Alg. 2). u, delta, z and y [n, d, length]; B
// and C [n, states, length]; A [d, states]; D and delta_bias [d]. z and delta_bias may be NULL.
// delta_softplus 0 or 1.
DEBLUR_API int32_t deblur_selective_scan(int32_t layout, const void* u, const void* delta,
                                         const float* A, const void* B, const void* C,
                                         const float* D, const void* z, const float* delta_bias,
                                         void* y, int64_t n, int64_t d, int64_t states,
                                         int64_t length, int32_t delta_softplus,
                                         const deblur_threads* threads);

// MotionDeformConv (M2AENet, arXiv:2507.07708, Sec. 3.3). x and y [n, c, h, w]; offset [n, 18, h,
// w], (dy, dx) of each tap; weight [c, 9]; bias [c]. With gate = 1, y [n, c / 2, h, w] is the
// product of the two halves of the channels, and c is even.
//
// A plan holds what follows from the offsets alone, so that layers with the same offsets can share
// it: deblur_motion_plan writes deblur_motion_plan_bytes bytes (negative for a bad size), aligned
// to 4. One of offset and plan may be NULL; the plan is used where both are given.
DEBLUR_API int64_t deblur_motion_plan_bytes(int64_t n, int64_t h, int64_t w);
DEBLUR_API int32_t deblur_motion_plan(const float* offset, void* plan, int64_t n, int64_t h,
                                      int64_t w, const deblur_threads* threads);
DEBLUR_API int32_t deblur_motion_deform_conv(int32_t layout, const void* x, const float* offset,
                                             const void* plan, const float* weight,
                                             const float* bias, void* y, int64_t n, int64_t c,
                                             int64_t h, int64_t w, int32_t gate,
                                             const deblur_threads* threads);

// DeformConv2d (index NULL, pixels = h * w) and DeformConv2dAt (Zhu et al. 2019, arXiv:1811.11168,
// Eq. 1). x [n, c, h, w]; offset [n, 2 * kernel^2, pixels]; weight [outputs, c, kernel, kernel];
// bias [outputs]; mask [n, kernel^2, pixels]; index [n, pixels], pixel numbers y * w + x; y [n,
// outputs, pixels]; kernel 3 or 5. A number outside the image stands for a pixel as far outside as
// it says.
DEBLUR_API int32_t deblur_deform_conv2d(const float* x, const float* offset, const float* weight,
                                        const float* bias, const float* mask, const int64_t* index,
                                        float* y, int64_t n, int64_t c, int64_t h, int64_t w,
                                        int64_t outputs, int64_t pixels, int32_t kernel,
                                        const deblur_threads* threads);

// PrunedConv (M2AENet, arXiv:2507.07708, Eq. 5), by gathered rows whatever the mask covers. x and y
// [n, c, h, w]; mask [n, 1, h, w] (above 0.5: computed); weight1 [2c, c]; bias1 [2c]; weight2 [2c,
// 9]; bias2 [2c].
DEBLUR_API int32_t deblur_pruned_conv(int32_t layout, const void* x, const float* mask,
                                      const float* weight1, const float* bias1,
                                      const float* weight2, const float* bias2, void* y, int64_t n,
                                      int64_t c, int64_t h, int64_t w,
                                      const deblur_threads* threads);

// DynamicFilter3 and DynamicFilter5. x and y [planes, h, w], mirrored at the border; weight
// [planes, kernel^2]; kernel 3 or 5.
DEBLUR_API int32_t deblur_dynamic_filter(const float* x, const float* weight, float* y,
                                         int64_t planes, int64_t h, int64_t w, int32_t kernel,
                                         const deblur_threads* threads);

// LocalMean. x and y [planes, h, w]; kernel 3, 6, 12, ... 384.
DEBLUR_API int32_t deblur_local_mean(const float* x, float* y, int64_t planes, int64_t h, int64_t w,
                                     int32_t kernel, const deblur_threads* threads);

// SamplingGrid. offset [n, 18, h, w]; grid [9, n, h, w, 2].
DEBLUR_API int32_t deblur_sampling_grid(const float* offset, float* grid, int64_t n, int64_t h,
                                        int64_t w, const deblur_threads* threads);

// PixelGather and PixelScatter. x, base and y [n, c, h, w]; index [pixels], numbers (image * h + y)
// * w + x; rows [pixels, kernel^2 * c], tap by tap; kernel 1 or 3, and 1 for PixelScatter.
// PixelScatter accepts every number at most once.
DEBLUR_API int32_t deblur_pixel_gather(const float* x, const int64_t* index, float* rows, int64_t n,
                                       int64_t c, int64_t h, int64_t w, int64_t pixels,
                                       int32_t kernel, const deblur_threads* threads);
DEBLUR_API int32_t deblur_pixel_scatter(const float* base, const int64_t* index, const float* rows,
                                        float* y, int64_t n, int64_t c, int64_t h, int64_t w,
                                        int64_t pixels, const deblur_threads* threads);

// TopPixels. scores [n, pixels], of which NaN is the lowest; index [n, count], ascending; of equal
// scores the lower number first.
DEBLUR_API int32_t deblur_top_pixels(const float* scores, int64_t* index, int64_t n, int64_t pixels,
                                     int64_t count, const deblur_threads* threads);

#ifdef __cplusplus
}
#endif

#endif
