// The arguments of LocalMean's CPU kernels, one for each instruction set.
#pragma once

#include <stdint.h>

#include "../common/dispatch.h"
#include "../common/parallel.h"

namespace deblur {

// x and y [planes, h, w].
struct MeanArguments {
  const float* x;
  float* y;
  int64_t planes, h, w, kernel;
};

}  // namespace deblur

DEBLUR_DECLARE(int32_t local_mean(const MeanArguments&, ThreadPool&))
