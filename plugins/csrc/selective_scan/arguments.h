// The arguments of SelectiveScan's CPU kernels, one for each instruction set.
#pragma once

#include <stdint.h>

#include "../common/dispatch.h"
#include "../common/parallel.h"

namespace deblur {

// u, delta, z and y [n, d, length], B and C [n, states, length], or with the channels last; A
// [d, states]; D and delta_bias [d].
struct ScanArguments {
  int32_t layout;  // of u, delta, B, C, z and y: DEBLUR_NCHW, ...
  const void *u, *delta;
  const float* A;
  const void *B, *C;
  const float* D;
  const void* z;            // may be null
  const float* delta_bias;  // may be null
  void* y;
  int64_t n, d, states, length;
  bool delta_softplus;
};

}  // namespace deblur

DEBLUR_DECLARE(int32_t selective_scan(const ScanArguments&, ThreadPool&))
