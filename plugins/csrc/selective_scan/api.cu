// deblur_cuda_selective_scan of deblur_cuda.h: checks its arguments, divides the workspace and
// launches the three phases.
#include "kernel.cuh"

#include "../common/sizes.h"

namespace {

using deblur::element_count;
using deblur::Queue;

constexpr int64_t kMostStates = 64;
// With so many states in all, a large GPU is fully occupied by whole sequences: one phase is
// enough, which is half the work.
constexpr int64_t kEnough = DEBLUR_BOUND(int64_t{1} << 21, 4096);

bool fits(int64_t n, int64_t d, int64_t states, int64_t length) {
  return length >= 1 && states >= 1 && states <= kMostStates &&
         element_count({n, d, length}) >= 0 && element_count({n, states, length}) >= 0 &&
         element_count({d, states}) >= 0 && element_count({n, d, states}) >= 0;
}

// Launches the phases; a thread holds `States` states.
template <typename T, int States>
void scan(Queue& queue, const deblur::ScanArguments<T>& a) {
  const int64_t groups = a.n * deblur::ceil_div(a.d, deblur::kLanes);
  const int threads = deblur::kLanes * static_cast<int>(deblur::ceil_div(a.states, States));
  if (a.chunks > 1) {
    queue.launch(deblur::ScanChunk<T, States, false>{a}, groups * (a.chunks - 1), threads);
    using Carry = deblur::CarryChunkStates<T>;
    queue.launch(Carry{a}, deblur::ceil_div(a.n * a.states * a.d, Carry::kThreads));
  }
  queue.launch(deblur::ScanChunk<T, States, true>{a}, groups * a.chunks, threads);
}

}  // namespace

// Chunk states [n, chunks - 1, states, d] and sums of delta [n, chunks - 1, d]. Without its last
// one a sequence has at most sqrt(length) chunks, which never shrinks when the length grows.
int64_t deblur_cuda_selective_scan_workspace(int32_t type, int64_t n, int64_t d, int64_t states,
                                             int64_t length) {
  if (!deblur::is_type(type) || !fits(n, d, states, length)) return -1;
  if (length <= deblur::kShortestChunk) return 0;
  const int64_t chunks = static_cast<int64_t>(sqrt(static_cast<double>(length))) + 1;
  deblur::Workspace memory;
  memory.take<float>(chunks * deblur::smaller(n * d * states, kEnough));
  memory.take<float>(chunks * deblur::smaller(n * d, kEnough));
  return memory.bytes();
}

int32_t deblur_cuda_selective_scan(int32_t type, const void* u, const float* delta, const float* A,
                                   const void* B, const void* C, const float* D, const void* z,
                                   const float* delta_bias, void* y, int64_t n, int64_t d,
                                   int64_t states, int64_t length, int32_t delta_softplus,
                                   void* workspace, int64_t workspace_bytes, void* stream) {
  if (!fits(n, d, states, length)) return DEBLUR_CUDA_BAD_SIZE;
  if (delta_softplus != 0 && delta_softplus != 1) return DEBLUR_CUDA_BAD_ARGUMENT;
  if (!deblur::is_type(type)) return DEBLUR_CUDA_BAD_ARGUMENT;
  if (n * d == 0) return DEBLUR_CUDA_OK;
  if (!u || !delta || !A || !B || !C || !D || !y) return DEBLUR_CUDA_NO_TENSOR;
  // `whole`: one chunk for the whole sequence, which needs no workspace.
  const bool whole = n * d * states >= kEnough || length <= deblur::kShortestChunk;
  const int64_t needed =
      whole ? 0 : deblur_cuda_selective_scan_workspace(type, n, d, states, length);
  if (const int32_t code = deblur::check_workspace(workspace, workspace_bytes, needed)) return code;

  const int64_t steps = whole ? length : deblur::chunk_steps(length);
  const int64_t chunks = deblur::ceil_div(length, steps);
  deblur::Workspace memory(workspace);
  float* chunk_state = memory.take<float>(n * (chunks - 1) * states * d);
  float* chunk_delta = memory.take<float>(n * (chunks - 1) * d);
  return deblur::with_type(type, [&](auto value) {
    using T = decltype(value);
    const deblur::ScanArguments<T> a = {static_cast<const T*>(u),
                                        static_cast<const T*>(B),
                                        static_cast<const T*>(C),
                                        static_cast<const T*>(z),
                                        delta,
                                        A,
                                        D,
                                        delta_bias,
                                        static_cast<T*>(y),
                                        chunk_state,
                                        chunk_delta,
                                        n,
                                        d,
                                        states,
                                        length,
                                        steps,
                                        chunks,
                                        delta_softplus == 1};
    // A thread holds 8 states where four warps are enough for all of them, else 16, which needs
    // twice the registers.
    Queue queue(stream);
    if (states > 8 * deblur::kWarps) scan<T, 16>(queue, a);
    else scan<T, 8>(queue, a);
    return queue.code();
  });
}
