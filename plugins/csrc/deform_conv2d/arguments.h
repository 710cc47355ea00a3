// The arguments of DeformConv2d's and DeformConv2dAt's CPU kernels, one for each instruction set.
#pragma once

#include <stdint.h>

#include "../common/bilinear.h"
#include "../common/dispatch.h"
#include "../common/parallel.h"

namespace deblur {

// x [n, c, h, w]; offset [n, 2 kernel^2, pixels]; weight [outputs, c, kernel^2]; bias [outputs];
// mask [n, kernel^2, pixels]; y [n, outputs, pixels]. `index` [n, pixels] lists the pixels; null:
// all of them, in their order.
struct DeformArguments {
  const float *x, *offset, *weight, *bias, *mask;
  const int64_t* index;
  float* y;
  int64_t n, c, h, w, outputs, pixels;
  int32_t kernel;
};

}  // namespace deblur

DEBLUR_DECLARE(int32_t deform_conv2d(const DeformArguments&, ThreadPool&))
