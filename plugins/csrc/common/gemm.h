// Matrix products of few rows with packed weights: out = rows * weights + bias.
//
// A micro kernel holds kRows x kPanel sums in registers; the weights come as panels of kPanel
// outputs, in the order in which they are read. Rows and weights are floats or, of half the depth,
// pairs of bfloat16.
#pragma once

#include "vec.h"

namespace deblur {
namespace DEBLUR_TARGET {

constexpr int64_t kPanel = 2 * kWidth;
#if defined(__AVX512F__)
constexpr int kRows = 12;
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 2;
#endif

DEBLUR_INLINE int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// What a product adds up.
struct OfFloats {
  DEBLUR_INLINE Vec add(Vec a, Vec b, Vec sum) { return fma(a, b, sum); }
};
#if defined(DEBLUR_PAIRS)
struct OfPairs {
  DEBLUR_INLINE Vec add(Vec a, Vec b, Vec sum) { return fma_pairs(a, b, sum); }
};
#endif

// Columns [0, kPanel) of `Rows` rows; weights [depth][kPanel].
template <class Of, int Rows>
DEBLUR_INLINE void micro_product(const float* rows, int64_t row_stride, int64_t depth,
                                 const float* weights, const float* bias, float* out,
                                 int64_t out_stride) {
  Vec left[Rows], right[Rows];
  const Vec bias_left = load(bias), bias_right = load(bias + kWidth);
  for (int i = 0; i < Rows; ++i) {
    left[i] = bias_left;
    right[i] = bias_right;
  }
  for (int64_t k = 0; k < depth; ++k) {
    const Vec a = load(weights + k * kPanel), b = load(weights + k * kPanel + kWidth);
    for (int i = 0; i < Rows; ++i) {
      const Vec x = set(rows[i * row_stride + k]);
      left[i] = Of::add(x, a, left[i]);
      right[i] = Of::add(x, b, right[i]);
    }
  }
  for (int i = 0; i < Rows; ++i) {
    store(out + i * out_stride, left[i]);
    store(out + i * out_stride + kWidth, right[i]);
  }
}

// rows [count][row_stride], of which the first `depth` columns count; weights [panels][depth]
// [kPanel]; bias [panels * kPanel]; out [count][out_stride].
template <class Of = OfFloats>
static inline void product(const float* rows, int64_t row_stride, int64_t count, int64_t depth,
                           const float* weights, const float* bias, int64_t panels, float* out,
                           int64_t out_stride) {
  for (int64_t panel = 0; panel < panels; ++panel) {
    const float* panel_weights = weights + panel * depth * kPanel;
    const float* panel_bias = bias + panel * kPanel;
    float* to = out + panel * kPanel;
    int64_t i = 0;
    for (; i + kRows <= count; i += kRows)
      micro_product<Of, kRows>(rows + i * row_stride, row_stride, depth, panel_weights, panel_bias,
                           to + i * out_stride, out_stride);
    for (; i + 4 <= count; i += 4)
      micro_product<Of, 4>(rows + i * row_stride, row_stride, depth, panel_weights, panel_bias,
                       to + i * out_stride, out_stride);
    for (; i < count; ++i)
      micro_product<Of, 1>(rows + i * row_stride, row_stride, depth, panel_weights, panel_bias,
                       to + i * out_stride, out_stride);
  }
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
