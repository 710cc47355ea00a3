// SelectiveScan: what the kernels of all instruction sets take.
#pragma once

#include <stdint.h>

#include "../common/dispatch.h"
#include "../common/parallel.h"

namespace deblur {

struct ScanArguments {
  const float *u, *delta, *rates, *enter, *read, *skip, *gate, *bias;  // gate, bias: may be null
  float* y;
  int64_t n, d, states, length;
  bool softplus;
};

}  // namespace deblur

DEBLUR_DECLARE(int32_t selective_scan(const ScanArguments&, Team&))
