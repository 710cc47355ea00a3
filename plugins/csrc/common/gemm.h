// Matrix products on the CPU: out = rows * weights + bias, with few rows and packed weights.
//
// A micro kernel holds kRows x kPanel sums in registers. The weights come in panels of kPanel
// outputs, in the order in which they are read. Rows and weights hold floats or, at half the depth,
// pairs of bfloat16.
#pragma once

#include "vec.h"

namespace deblur {
namespace DEBLUR_TARGET {

// kRows x two vectors of sums, two vectors of weights and one value of a row fit the registers: 32
// with AVX-512, 16 with AVX2.
constexpr int64_t kPanel = 2 * kWidth;
#if defined(__AVX512F__)
constexpr int kRows = 12;
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 2;
#endif

// What a product adds up: floats, or pairs of bfloat16 to a float.
struct FloatFma {
  DEBLUR_INLINE Vec add(Vec a, Vec b, Vec sum) { return fma(a, b, sum); }
};
#if defined(DEBLUR_PAIRS)
struct Bf16PairFma {
  DEBLUR_INLINE Vec add(Vec a, Vec b, Vec sum) { return fma_pairs(a, b, sum); }
};
#endif

// One panel of `Rows` rows: out [Rows][kPanel] = rows [Rows][depth] * weights [depth][kPanel] +
// bias [kPanel].
template <class Fma, int Rows>
DEBLUR_INLINE void micro_kernel(const float* rows, int64_t row_stride, int64_t depth,
                                const float* weights, const float* bias, float* out,
                                int64_t out_stride) {
  Vec low[Rows], high[Rows];
  const Vec bias_low = load(bias), bias_high = load(bias + kWidth);
  for (int i = 0; i < Rows; ++i) {
    low[i] = bias_low;
    high[i] = bias_high;
  }
  // Every step of k loads two vectors of weights and broadcasts one value of each row.
  for (int64_t k = 0; k < depth; ++k) {
    const Vec a = load(weights + k * kPanel), b = load(weights + k * kPanel + kWidth);
    for (int i = 0; i < Rows; ++i) {
      const Vec x = set(rows[i * row_stride + k]);
      low[i] = Fma::add(x, a, low[i]);
      high[i] = Fma::add(x, b, high[i]);
    }
  }
  for (int i = 0; i < Rows; ++i) {
    store(out + i * out_stride, low[i]);
    store(out + i * out_stride + kWidth, high[i]);
  }
}

// rows [count][row_stride], of which the first `depth` columns are multiplied; weights
// [panels][depth] [kPanel]; bias [panels * kPanel]; out [count][out_stride]. A panel of weights
// stays in the cache while all rows pass by: most of them kRows at a time, the rest four and one at
// a time.
template <class Fma = FloatFma>
static inline void gemm(const float* rows, int64_t row_stride, int64_t count, int64_t depth,
                        const float* weights, const float* bias, int64_t panels, float* out,
                        int64_t out_stride) {
  for (int64_t panel = 0; panel < panels; ++panel) {
    const float* panel_weights = weights + panel * depth * kPanel;
    const float* panel_bias = bias + panel * kPanel;
    float* to = out + panel * kPanel;
    int64_t i = 0;
    for (; i + kRows <= count; i += kRows)
      micro_kernel<Fma, kRows>(rows + i * row_stride, row_stride, depth, panel_weights, panel_bias,
                               to + i * out_stride, out_stride);
    for (; i + 4 <= count; i += 4)
      micro_kernel<Fma, 4>(rows + i * row_stride, row_stride, depth, panel_weights, panel_bias,
                           to + i * out_stride, out_stride);
    for (; i < count; ++i)
      micro_kernel<Fma, 1>(rows + i * row_stride, row_stride, depth, panel_weights, panel_bias,
                           to + i * out_stride, out_stride);
  }
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
