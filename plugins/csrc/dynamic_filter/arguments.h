// The arguments of DynamicFilter's CPU kernels, one for each instruction set.
#pragma once

#include <stdint.h>

#include "../common/dispatch.h"
#include "../common/parallel.h"

namespace deblur {

// x and y [planes, h, w]; weight [planes, kernel * kernel].
struct FilterArguments {
  const float *x, *weight;
  float* y;
  int64_t planes, h, w, kernel;
};

}  // namespace deblur

DEBLUR_DECLARE(int32_t dynamic_filter(const FilterArguments&, ThreadPool&))
