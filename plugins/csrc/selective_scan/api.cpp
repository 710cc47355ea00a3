// deblur_selective_scan of deblur_cpu.h: checks its arguments and calls the kernel.
#include "../common/buffer.h"
#include "../common/sizes.h"
#include "arguments.h"

int32_t deblur_selective_scan(int32_t layout, const void* u, const void* delta, const float* A,
                              const void* B, const void* C, const float* D, const void* z,
                              const float* delta_bias, void* y, int64_t n, int64_t d,
                              int64_t states, int64_t length, int32_t delta_softplus,
                              const deblur_threads* threads) {
  // Attributes, sizes, tensors, in this order: a call without values may have NULL tensors.
  using deblur::element_count;
  if (layout < DEBLUR_NCHW || layout > DEBLUR_NHWC_BF16) return DEBLUR_BAD_ARGUMENT;
  if (length < 1 || states < 1) return DEBLUR_BAD_SIZE;
  const int64_t values = element_count({n, d, length});
  if (values < 0 || element_count({n, states, length}) < 0 || element_count({d, states}) < 0)
    return DEBLUR_BAD_SIZE;
  if (values == 0) return DEBLUR_OK;
  if (!u || !delta || !A || !B || !C || !D || !y) return DEBLUR_NO_TENSOR;
  if (delta_softplus != 0 && delta_softplus != 1) return DEBLUR_BAD_ARGUMENT;
  deblur::advise_huge_pages(y, values * (layout == DEBLUR_NHWC_BF16 ? 2 : 4));
  const deblur::ScanArguments arguments = {
      layout, u, delta, A, B, C, D, z, delta_bias, y, n, d, states, length, delta_softplus == 1};
  deblur::ThreadPool pool(threads);
  return DEBLUR_DISPATCH(selective_scan, arguments, pool);
}
