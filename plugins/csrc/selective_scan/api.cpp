#include "../common/buffer.h"
#include "../common/sizes.h"
#include "arguments.h"

int32_t deblur_selective_scan(const float* u, const float* delta, const float* A, const float* B,
                              const float* C, const float* D, const float* z,
                              const float* delta_bias, float* y, int64_t n, int64_t d,
                              int64_t states, int64_t length, int32_t delta_softplus,
                              const deblur_threads* threads) {
  using deblur::product;
  if (length < 1 || states < 1) return DEBLUR_BAD_SIZE;
  const int64_t values = product({n, d, length});
  if (values < 0 || product({n, states, length}) < 0 || product({d, states}) < 0)
    return DEBLUR_BAD_SIZE;
  if (values == 0) return DEBLUR_OK;
  for (const float* tensor : {u, delta, A, B, C, D, static_cast<const float*>(y)})
    if (tensor == nullptr) return DEBLUR_NO_TENSOR;
  if (delta_softplus != 0 && delta_softplus != 1) return DEBLUR_BAD_ARGUMENT;
  deblur::expect_large(y, values * static_cast<int64_t>(sizeof(float)));
  const deblur::ScanArguments arguments = {u, delta,  A, B, C,      D,      z,
                                           delta_bias, y, n, d, states, length, delta_softplus == 1};
  deblur::Team team(threads);
  return DEBLUR_DISPATCH(selective_scan, arguments, team);
}
