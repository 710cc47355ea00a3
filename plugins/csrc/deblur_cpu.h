// Native CPU kernels of the custom ops of domain `deblur`: plain C functions, float32.
//
// Tensors are dense, row-major, without alignment; inputs are never written. Every function
// returns 0 or an error code, and computes nothing where it returns an error. All of them may run
// at the same time in several threads. The environment variable DEBLUR_ISA (scalar, avx2, avx512,
// avx512_bf16) asks for an instruction set; what the processor lacks is not used.
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

// How features (x; u, delta, B, C, z; y) lie, for ops with an argument `features`: with the channels
// before the pixels, as is written at the op, or behind them ([n, h, w, c], [n, length, d],
// [n, length, states]), then as float or bfloat16. All other tensors are float.
enum { DEBLUR_FIRST = 0, DEBLUR_LAST = 1, DEBLUR_LAST_BF16 = 2 };

// Where the work runs. `run` NULL: on `count` threads made for the call (the caller's is one of
// them). Otherwise run(runtime, tasks, task, data) calls task(data, i) once for every i < tasks,
// on whatever threads it has, in any order, and returns when all are done; `count` says how many
// it has. A NULL deblur_threads means one thread.
typedef struct deblur_threads {
  int64_t count;
  void (*run)(void* runtime, int64_t tasks, void (*task)(void* data, int64_t index), void* data);
  void* runtime;
} deblur_threads;

DEBLUR_API int32_t deblur_version(void);
DEBLUR_API const char* deblur_instruction_set(void);   // the one in use: "avx512", ...
DEBLUR_API const char* deblur_instruction_sets(void);  // those in the library, space between
DEBLUR_API const char* deblur_error_text(int32_t code);

// SelectiveScan. u, delta, z and y [n, d, length]; A [d, states]; B and C [n, states, length];
// D and delta_bias [d]. z and delta_bias may be NULL.
DEBLUR_API int32_t deblur_selective_scan(int32_t features, const void* u, const void* delta,
                                         const float* A, const void* B, const void* C,
                                         const float* D, const void* z, const float* delta_bias,
                                         void* y, int64_t n, int64_t d, int64_t states,
                                         int64_t length, int32_t delta_softplus,
                                         const deblur_threads* threads);

// MotionDeformConv. x and y [n, c, h, w]; offset [n, 18, h, w], (dy, dx) a tap; weight [c, 9];
// bias [c]. With gate = 1, y [n, c / 2, h, w] is the product of the two halves of the channels, of
// which c must have pairs. A plan holds what follows from the offsets alone; layers that share them
// can share it: deblur_motion_plan writes it into deblur_motion_plan_bytes (negative for a bad
// size) bytes. Either offset or plan may be NULL; the plan is used where both are given.
DEBLUR_API int64_t deblur_motion_plan_bytes(int64_t n, int64_t h, int64_t w);
DEBLUR_API int32_t deblur_motion_plan(const float* offset, void* plan, int64_t n, int64_t h,
                                      int64_t w, const deblur_threads* threads);
DEBLUR_API int32_t deblur_motion_deform_conv(int32_t features, const void* x, const float* offset,
                                             const void* plan, const float* weight,
                                             const float* bias, void* y, int64_t n, int64_t c,
                                             int64_t h, int64_t w, int32_t gate,
                                             const deblur_threads* threads);

// DeformConv2d (index NULL, pixels = h * w) and DeformConv2dAt. x [n, c, h, w]; offset
// [n, 2 * kernel^2, pixels]; weight [outputs, c, kernel, kernel]; bias [outputs]; mask
// [n, kernel^2, pixels]; index [n, pixels], pixel numbers y * w + x; y [n, outputs, pixels];
// kernel 3 or 5. A number outside the image lies as far outside as it says.
DEBLUR_API int32_t deblur_deform_conv2d(const float* x, const float* offset, const float* weight,
                                        const float* bias, const float* mask, const int64_t* index,
                                        float* y, int64_t n, int64_t c, int64_t h, int64_t w,
                                        int64_t outputs, int64_t pixels, int32_t kernel,
                                        const deblur_threads* threads);

// PrunedConv, at any coverage by gathered rows. x and y [n, c, h, w]; mask [n, 1, h, w]; weight1
// [2c, c], bias1 [2c]; weight2 [2c, 9], bias2 [2c].
DEBLUR_API int32_t deblur_pruned_conv(int32_t features, const void* x, const float* mask,
                                      const float* weight1, const float* bias1,
                                      const float* weight2, const float* bias2, void* y, int64_t n,
                                      int64_t c, int64_t h, int64_t w,
                                      const deblur_threads* threads);

// DynamicFilter3 and 5. x and y [planes, h, w], mirrored at the border; weight
// [planes, kernel^2]; kernel 3 or 5.
DEBLUR_API int32_t deblur_dynamic_filter(const float* x, const float* weight, float* y,
                                         int64_t planes, int64_t h, int64_t w, int32_t kernel,
                                         const deblur_threads* threads);

// LocalMean. x and y [planes, h, w]; kernel 3, 6, 12, ... 384.
DEBLUR_API int32_t deblur_local_mean(const float* x, float* y, int64_t planes, int64_t h,
                                     int64_t w, int32_t kernel, const deblur_threads* threads);

// SamplingGrid. offset [n, 18, h, w]; grid [9, n, h, w, 2].
DEBLUR_API int32_t deblur_sampling_grid(const float* offset, float* grid, int64_t n, int64_t h,
                                        int64_t w, const deblur_threads* threads);

// PixelGather and PixelScatter. x, base and y [n, c, h, w]; index [pixels], numbers
// (image * h + y) * w + x; rows [pixels, kernel^2 * c], tap by tap; kernel 1 or 3, for
// PixelScatter 1. PixelScatter takes every number at most once.
DEBLUR_API int32_t deblur_pixel_gather(const float* x, const int64_t* index, float* rows,
                                       int64_t n, int64_t c, int64_t h, int64_t w, int64_t pixels,
                                       int32_t kernel, const deblur_threads* threads);
DEBLUR_API int32_t deblur_pixel_scatter(const float* base, const int64_t* index, const float* rows,
                                        float* y, int64_t n, int64_t c, int64_t h, int64_t w,
                                        int64_t pixels, const deblur_threads* threads);

// TopPixels. scores [n, pixels], of which nan is the lowest; index [n, count].
DEBLUR_API int32_t deblur_top_pixels(const float* scores, int64_t* index, int64_t n,
                                     int64_t pixels, int64_t count, const deblur_threads* threads);

#ifdef __cplusplus
}
#endif

#endif
