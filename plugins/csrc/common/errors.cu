// The functions of deblur_cuda.h that belong to no op.
#include "launch.cuh"

int32_t deblur_cuda_version(void) { return DEBLUR_CUDA_VERSION; }

const char* deblur_cuda_error_text(int32_t code) {
  switch (code) {
    case DEBLUR_CUDA_OK:
      return "no error";
    case DEBLUR_CUDA_BAD_SIZE:
      return "a size is negative, zero where it must not be, or too large";
    case DEBLUR_CUDA_NO_TENSOR:
      return "a required tensor is missing";
    case DEBLUR_CUDA_BAD_ARGUMENT:
      return "an attribute or the type has a value that the op does not have";
    case DEBLUR_CUDA_NO_WORKSPACE:
      return "the workspace is missing, too small or not aligned to 16 bytes";
    default:
#if defined(__CUDACC__)
      if (code >= DEBLUR_CUDA_RUNTIME)
        return cudaGetErrorString(static_cast<cudaError_t>(code - DEBLUR_CUDA_RUNTIME));
#endif
      return "unknown error";
  }
}
