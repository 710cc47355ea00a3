// Transposes between tensors with the channels first and rows of channels.
#pragma once

#include "vec.h"

namespace deblur {
namespace DEBLUR_TARGET {

#if defined(__AVX2__)
// A block of 8 x 8 in registers: interleave pairs of rows, then pairs of pairs, then swap the
// halves.
DEBLUR_INLINE void transpose_8x8(const float* from, int64_t from_stride, float* to,
                                 int64_t to_stride) {
  __m256 r[8], s[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(from + i * from_stride);
  for (int i = 0; i < 8; i += 2) {
    s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xEE);
    r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}
#endif

// to[j * to_stride + i] = from[i * from_stride + j], i < rows, j < columns.
static inline void transpose(const float* from, int64_t from_stride, int64_t rows, int64_t columns,
                             float* to, int64_t to_stride) {
  int64_t full_rows = 0, full_columns = 0;
#if defined(__AVX2__)
  full_rows = rows / 8 * 8;
  full_columns = columns / 8 * 8;
  // Blocks of 8 x 8. The inner loop stays within the rows that lie far apart, because each of them
  // is a page of its own.
  if (from_stride > to_stride) {
    for (int64_t i = 0; i < full_rows; i += 8)
      for (int64_t j = 0; j < full_columns; j += 8)
        transpose_8x8(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
  } else {
    for (int64_t j = 0; j < full_columns; j += 8)
      for (int64_t i = 0; i < full_rows; i += 8)
        transpose_8x8(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
  }
#endif
  // What is left at the right and at the bottom.
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = i < full_rows ? full_columns : 0; j < columns; ++j)
      to[j * to_stride + i] = from[i * from_stride + j];
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
