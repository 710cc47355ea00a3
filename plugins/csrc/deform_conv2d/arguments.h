// DeformConv2d and DeformConv2dAt: what the kernels of all instruction sets take.
#pragma once

#include <stdint.h>

#include "../common/bilinear.h"
#include "../common/dispatch.h"
#include "../common/parallel.h"

namespace deblur {

// At the pixels listed in `index`, or at all of them where it is null; `pixels` of each image.
struct DeformArguments {
  const float *x, *offset, *weight, *bias, *mask;
  const int64_t* index;
  float* y;
  int64_t n, c, h, w, outputs, pixels;
  int32_t kernel;
};

}  // namespace deblur

DEBLUR_DECLARE(int32_t deform_conv2d(const DeformArguments&, Team&))
