// How CUDA kernels are written, launched and given memory.
//
// A kernel is a struct of its arguments with kThreads, a trivial type Shared (its shared memory),
// and
//   template <typename Block> DEBLUR_FN void operator()(Block& block, Shared& shared) const
// which one thread runs. `block` has index, thread and threads, sync() (a barrier of the block) and
// add() (an atomic sum in shared memory). Nothing else of the device is used but the tensor cores
// (mma.h). Hence, with -DDEBLUR_EMULATION, a C++ compiler makes of the same source a library that
// runs on the processor (../emulation), so that every index is tested without a GPU.
#pragma once

#include <stdint.h>

#include "../deblur_cuda.h"
#include "number.cuh"

// A bound on the device; the emulation takes a smaller one, so that small test cases reach it.
#if defined(DEBLUR_EMULATION)
#define DEBLUR_BOUND(device, processor) processor
#else
#define DEBLUR_BOUND(device, processor) device
#endif

#if defined(DEBLUR_EMULATION)
#include "../emulation/launch.h"
#elif !defined(__CUDACC__)
#error "CUDA kernels are compiled by nvcc, or for the processor with -DDEBLUR_EMULATION"
#else

#include <cuda_runtime.h>

namespace deblur {

struct Block {
  int64_t index;
  int thread, threads;
  __device__ void sync() const { __syncthreads(); }
  __device__ void add(int* to, int value) const { atomicAdd(to, value); }
};

// How many blocks a multiprocessor must have the registers for: kResident, where a kernel has it.
template <typename Kernel, typename = void>
constexpr int kResident = 1;
template <typename Kernel>
constexpr int kResident<Kernel, decltype(void(Kernel::kResident))> = Kernel::kResident;

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, kResident<Kernel>)
    run(const __grid_constant__ Kernel kernel) {
  __shared__ typename Kernel::Shared shared;
  const Block block = {blockIdx.x, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
  kernel(block, shared);
}

// Launches kernels on a stream, and keeps the first error; after an error nothing more is launched.
class Queue {
 public:
  explicit Queue(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {}

  template <typename Kernel>
  void launch(const Kernel& kernel, int64_t blocks, int threads = Kernel::kThreads) {
    static_assert(sizeof(typename Kernel::Shared) <= 48 * 1024, "static shared memory");
    if (code_ != DEBLUR_CUDA_OK || blocks == 0) return;
    // A grid has at most 2^31 - 1 blocks in its first dimension, the only one that is used.
    if (blocks > INT32_MAX) {
      code_ = DEBLUR_CUDA_BAD_SIZE;
      return;
    }
    run<<<static_cast<unsigned>(blocks), threads, 0, stream_>>>(kernel);
    note(cudaGetLastError());
  }

  void copy(void* to, const void* from, int64_t bytes) {
    if (code_ != DEBLUR_CUDA_OK || bytes == 0) return;
    note(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream_));
  }

  int32_t code() const { return code_; }

 private:
  void note(cudaError_t error) {
    if (error != cudaSuccess) code_ = DEBLUR_CUDA_RUNTIME + static_cast<int32_t>(error);
  }

  cudaStream_t stream_;
  int32_t code_ = DEBLUR_CUDA_OK;
};

}  // namespace deblur

#endif

namespace deblur {

// Calls function(T{}) for the element type that `type` names.
template <typename Function>
int32_t with_type(int32_t type, const Function& function) {
  switch (type) {
    case DEBLUR_F32:
      return function(float{});
    case DEBLUR_F16:
      return function(Half{});
    case DEBLUR_BF16:
      return function(Bfloat{});
    default:
      return DEBLUR_CUDA_BAD_ARGUMENT;
  }
}
inline bool is_type(int32_t type) { return type >= DEBLUR_F32 && type <= DEBLUR_BF16; }
inline int64_t size_of(int32_t type) { return type == DEBLUR_F32 ? 4 : 2; }

// Divides a workspace into parts, each a multiple of 256 bytes from its beginning; without memory
// it only adds up their sizes.
class Workspace {
 public:
  explicit Workspace(void* memory = nullptr) : memory_(static_cast<char*>(memory)) {}
  template <typename T>
  T* take(int64_t count) {
    char* part = memory_ == nullptr ? nullptr : memory_ + bytes_;
    bytes_ += round_up(count * static_cast<int64_t>(sizeof(T)), 256);
    return reinterpret_cast<T*>(part);
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* memory_;
  int64_t bytes_ = 0;
};

// Checks that a workspace has `needed` bytes, which are negative for sizes that are refused;
// returns an error code.
inline int32_t check_workspace(const void* workspace, int64_t bytes, int64_t needed) {
  if (needed < 0) return DEBLUR_CUDA_BAD_SIZE;
  if (needed == 0) return DEBLUR_CUDA_OK;
  const bool aligned = reinterpret_cast<uintptr_t>(workspace) % 16 == 0;
  return workspace != nullptr && aligned && bytes >= needed ? DEBLUR_CUDA_OK
                                                            : DEBLUR_CUDA_NO_WORKSPACE;
}

}  // namespace deblur
