// SelectiveScan: what the kernels of all instruction sets take.
#pragma once

#include <stdint.h>

#include "../common/dispatch.h"
#include "../common/parallel.h"

namespace deblur {

struct ScanArguments {
  int32_t features;  // of u, delta, enter, read, gate and y: DEBLUR_FIRST, ...
  const void *u, *delta;
  const float* rates;
  const void *enter, *read;
  const float* skip;
  const void* gate;   // may be null
  const float* bias;  // may be null
  void* y;
  int64_t n, d, states, length;
  bool softplus;
};

}  // namespace deblur

DEBLUR_DECLARE(int32_t selective_scan(const ScanArguments&, Team&))
