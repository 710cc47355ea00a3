// Channels of an image as rows, one row a pixel, inside a border of zeros.
#pragma once

#include <string.h>

#include "../common/index.h"
#include "../common/transpose.h"

namespace deblur {
namespace DEBLUR_TARGET {

// Image rows [begin, end) of `channels` channels of x [channels, h, w] into `to` [canvas, stride];
// the border rows go with the first and the last image row. Lanes beyond the channels are zero.
static inline void fill_canvas(const float* x, Canvas canvas, int64_t channels, int64_t stride,
                               int64_t begin, int64_t end, float* to) {
  const int64_t width = canvas.width, line = (width + 2) * stride;
  const size_t line_bytes = sizeof(float) * static_cast<size_t>(line);
  if (begin == 0) memset(to, 0, line_bytes);
  if (end == canvas.height) memset(to + (end + 1) * line, 0, 2 * line_bytes);
  for (int64_t y = begin; y < end; ++y) {
    float* row = to + (y + 1) * line;
    if (channels < stride) {
      memset(row, 0, line_bytes);
    } else {
      memset(row, 0, sizeof(float) * static_cast<size_t>(stride));
      memset(row + (width + 1) * stride, 0, sizeof(float) * static_cast<size_t>(stride));
    }
    transpose(x + y * width, width * canvas.height, channels, width, row + stride, stride);
  }
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
