// Copies an image [c, h, w] into the padded image of bilinear.h with the channels last: every pixel
// is a row of `stride` channels, so that one sample of all channels reads four rows.
#pragma once

#include <string.h>

#include "bilinear.h"
#include "transpose.h"

namespace deblur {
namespace DEBLUR_TARGET {

// Clears the border of `to` [padded pixels, stride] beside the image rows [begin, end); the rows
// above and below belong to the first and the last image row. With `whole` it clears the image rows
// too, because fill_padded does not write lanes that have no channel.
static inline void clear_border(ImageSize size, int64_t stride, bool whole, int64_t begin,
                                int64_t end, float* to) {
  const int64_t width = size.width, line = (width + 2) * stride;
  const size_t line_bytes = sizeof(float) * static_cast<size_t>(line);
  const size_t pixel_bytes = sizeof(float) * static_cast<size_t>(stride);
  if (begin == 0) memset(to, 0, line_bytes);
  if (end == size.height) memset(to + (end + 1) * line, 0, 2 * line_bytes);
  for (float* row = to + (begin + 1) * line; row < to + (end + 1) * line; row += line) {
    memset(row, 0, whole ? line_bytes : pixel_bytes);
    memset(row + line - stride, 0, pixel_bytes);
  }
}

// Writes the image rows [begin, end) of x [channels, h, w] into the first lanes of `to` [padded
// pixels, stride].
static inline void fill_padded(const float* x, ImageSize size, int64_t channels, int64_t stride,
                               int64_t begin, int64_t end, float* to) {
  const int64_t width = size.width, line = (width + 2) * stride;
  for (int64_t y = begin; y < end; ++y)
    transpose(x + y * width, width * size.height, channels, width, to + (y + 1) * line + stride,
              stride);
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
