// The arguments of PrunedConv's CPU kernels, one for each instruction set.
#pragma once

#include <stdint.h>

#include "../common/dispatch.h"
#include "../common/parallel.h"

namespace deblur {

// x and y [n, c, h, w] or [n, h, w, c]; mask [n, 1, h, w]; weight1 [2c, c]; bias1 [2c]; weight2
// [2c, 9]; bias2 [2c].
struct PrunedArguments {
  int32_t layout;  // of x and y: DEBLUR_NCHW, ...
  const void* x;
  const float *mask, *weight1, *bias1, *weight2, *bias2;
  void* y;
  int64_t n, c, h, w;
};

}  // namespace deblur

DEBLUR_DECLARE(int32_t pruned_conv(const PrunedArguments&, ThreadPool&))
