// Channels of an image as rows, one row a pixel, inside a border of zeros.
#pragma once

#include <string.h>

#include "bilinear.h"
#include "transpose.h"

namespace deblur {
namespace DEBLUR_TARGET {

// Clears what image rows [begin, end) leave of `to` [canvas, stride]: the border, whose rows go
// with the first and the last image row, and the image too where `whole` says that lanes stay
// unused.
static inline void clear_canvas(Canvas canvas, int64_t stride, bool whole, int64_t begin,
                                int64_t end, float* to) {
  const int64_t width = canvas.width, line = (width + 2) * stride;
  const size_t line_bytes = sizeof(float) * static_cast<size_t>(line);
  const size_t pixel_bytes = sizeof(float) * static_cast<size_t>(stride);
  if (begin == 0) memset(to, 0, line_bytes);
  if (end == canvas.height) memset(to + (end + 1) * line, 0, 2 * line_bytes);
  for (float* row = to + (begin + 1) * line; row < to + (end + 1) * line; row += line) {
    memset(row, 0, whole ? line_bytes : pixel_bytes);
    memset(row + line - stride, 0, pixel_bytes);
  }
}

// Image rows [begin, end) of `channels` channels of x [channels, h, w] into lanes of `to` [canvas,
// stride].
static inline void fill_canvas(const float* x, Canvas canvas, int64_t channels, int64_t stride,
                               int64_t begin, int64_t end, float* to) {
  const int64_t width = canvas.width, line = (width + 2) * stride;
  for (int64_t y = begin; y < end; ++y)
    transpose(x + y * width, width * canvas.height, channels, width, to + (y + 1) * line + stride,
              stride);
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
