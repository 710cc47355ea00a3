#include "../common/buffer.h"
#include "../common/sizes.h"
#include "arguments.h"

int32_t deblur_selective_scan(int32_t features, const void* u, const void* delta, const float* A,
                              const void* B, const void* C, const float* D, const void* z,
                              const float* delta_bias, void* y, int64_t n, int64_t d,
                              int64_t states, int64_t length, int32_t delta_softplus,
                              const deblur_threads* threads) {
  using deblur::product;
  if (features < DEBLUR_FIRST || features > DEBLUR_LAST_BF16) return DEBLUR_BAD_ARGUMENT;
  if (length < 1 || states < 1) return DEBLUR_BAD_SIZE;
  const int64_t values = product({n, d, length});
  if (values < 0 || product({n, states, length}) < 0 || product({d, states}) < 0)
    return DEBLUR_BAD_SIZE;
  if (values == 0) return DEBLUR_OK;
  if (!u || !delta || !A || !B || !C || !D || !y) return DEBLUR_NO_TENSOR;
  if (delta_softplus != 0 && delta_softplus != 1) return DEBLUR_BAD_ARGUMENT;
  deblur::expect_large(y, values * (features == DEBLUR_LAST_BF16 ? 2 : 4));
  const deblur::ScanArguments arguments = {features, u, delta, A,      B,      C,
                                           D,        z, delta_bias, y, n, d, states, length,
                                           delta_softplus == 1};
  deblur::Team team(threads);
  return DEBLUR_DISPATCH(selective_scan, arguments, team);
}
