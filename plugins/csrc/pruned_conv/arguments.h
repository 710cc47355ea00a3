// PrunedConv: what the kernels of all instruction sets take.
#pragma once

#include <stdint.h>

#include "../common/dispatch.h"
#include "../common/parallel.h"

namespace deblur {

struct PrunedArguments {
  int32_t features;  // of x and y: DEBLUR_FIRST, ...
  const void* x;
  const float *mask, *weight1, *bias1, *weight2, *bias2;
  void* y;
  int64_t n, c, h, w;
};

}  // namespace deblur

DEBLUR_DECLARE(int32_t pruned_conv(const PrunedArguments&, Team&))
