// The CUDA kernels of SelectiveScan, the recurrence of Mamba (Gu and Dao 2023, arXiv:2312.00752,
// Sec. 3.2, Alg. 2), with delta after its bias and softplus:
//
//   h_t[d, s] = exp(delta_t[d] A[d, s]) h_{t-1}[d, s] + delta_t[d] u_t[d] B_t[s]
//   y_t[d]    = (sum_s C_t[s] h_t[d, s] + D[d] u_t[d]) silu(z_t[d])
//
// The sequence is cut into chunks, and there are three phases:
//   1. ScanChunk<.., false>: every chunk but the last starts from a state of zero. It leaves its
//   end
//      state (the chunk state) and the sum of its deltas.
//   2. CarryChunkStates: the chunk states are carried from chunk to chunk.
//   3. ScanChunk<.., true>: every chunk starts from its true state and writes its outputs.
// The decay over a whole chunk is exp(A sum(delta)), so that nothing is divided and no logarithm is
// taken: a decay that underflows to zero does no harm.
//
// A block computes 32 channels of one chunk. Each lane of a warp has one of the channels, and each
// warp has `States` of the states, which its threads keep in registers throughout the chunk. Tiles
// of 32 steps pass through shared memory: global memory is read and written along the sequence
// (coalesced), while the recurrence reads the tile along the channels.
#pragma once

#include "../common/launch.cuh"
#include "step.cuh"

namespace deblur {

constexpr int kLanes = 32;  // channels of a block, one for each lane
constexpr int kTileSteps = 32;
constexpr int kWarps = 4;  // of a block, at most
// One more than the tile is wide: the lanes of a warp, which read a column, hit different banks.
constexpr int kPitch = kTileSteps + 1;

// u, delta, z and y [n, d, length]; B and C [n, states, length]; A [d, states]; D and delta_bias
// [d]. All are row-major; u, B, C, z and y hold T, the others float32.
template <typename T>
struct ScanArguments {
  const T *u, *B, *C, *z;  // z and delta_bias may be null
  const float *delta, *A, *D, *delta_bias;
  T* y;
  float *chunk_state, *chunk_delta;  // [n, chunks - 1, states, d] and [n, chunks - 1, d]
  int64_t n, d, states, length;
  int64_t steps, chunks;  // steps of a chunk, chunks of the sequence
  bool delta_softplus;
};

// The shared memory of a block: 32 steps of its channels and of all states. What only the outputs
// need has no size in phase 1.
template <int States, bool Outputs>
struct ScanTile {
  // Rows of B and C are aligned to 16 bytes, for loads of four states at once.
  static constexpr int kStatesPitch = kWarps * States + 4;
  alignas(16) float B[kTileSteps * kStatesPitch];                // [step][state]
  alignas(16) float C[Outputs ? kTileSteps * kStatesPitch : 4];  // [step][state]
  float delta[kLanes * kPitch], delta_u[kLanes * kPitch];        // [channel][step]
  float u[Outputs ? kLanes * kPitch : 1];                        // [channel][step]
  // [warp][step][channel]: sum of C h over the states of one warp.
  float y[Outputs ? kWarps * kTileSteps * kPitch : 1];
};

// Scans one chunk of 32 channels: from a state of zero to its chunk state (phase 1), or, with
// `Outputs`, from its true state to y (phase 3).
template <typename T, int States, bool Outputs>
struct ScanChunk {
  static constexpr int kThreads = kLanes * kWarps;
  using Shared = ScanTile<States, Outputs>;
  ScanArguments<T> a;

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& tile) const {
    // What this block computes. Neighbouring blocks have neighbouring channels of the same chunk:
    // they read the same steps of B and C, which come from the L2 cache for all but the first.
    const int lane = block.thread % kLanes, warp = block.thread / kLanes;
    const int64_t chunks = Outputs ? a.chunks : a.chunks - 1, groups = ceil_div(a.d, kLanes);
    const int64_t group = block.index % groups, chunk = block.index / groups % chunks;
    const int64_t image = block.index / (chunks * groups);
    const int64_t first = group * kLanes, channel = first + lane;
    const int64_t begin = chunk * a.steps, end = smaller(begin + a.steps, a.length);

    // This thread's states of its channel, in registers until the chunk ends. A gets a factor of
    // log2(e), so that the decay is a power of two. States that only fill up the last warp have
    // A = B = C = 0: they stay zero and add nothing. Lanes without a channel compute numbers that
    // nobody reads.
    float A[States], h[States], delta_sum = 0.0f;
    const int64_t before = image * (a.chunks - 1) + chunk - 1;
    DEBLUR_UNROLL
    for (int i = 0; i < States; ++i) {
      const int64_t s = warp * States + i;
      const bool used = channel < a.d && s < a.states;
      A[i] = used ? kLog2E * a.A[channel * a.states + s] : 0.0f;
      h[i] = Outputs && used && chunk > 0 ? a.chunk_state[(before * a.states + s) * a.d + channel]
                                          : 0.0f;
    }
    for (int64_t at = begin; at < end; at += kTileSteps) {
      // Stage a tile of the inputs; no thread may read it before all have written their part.
      const int count = static_cast<int>(smaller(kTileSteps, end - at));
      load(block, tile, image, first, at, count);
      block.sync();
      // The recurrence itself, one step after the other. Four states at a time, because B and C
      // come as 128-bit loads; all lanes of a warp read the same address, which is a broadcast.
      for (int t = 0; t < count; ++t) {
        const float delta = tile.delta[lane * kPitch + t],
                    delta_u = tile.delta_u[lane * kPitch + t];
        const float *B = tile.B + t * Shared::kStatesPitch + warp * States,
                    *C = tile.C + t * Shared::kStatesPitch + warp * States;
        float y = 0.0f;
        DEBLUR_UNROLL
        for (int four = 0; four < States; four += 4) {
          const Vec4<float> b = load4(B + four);
          const Vec4<float> c = Outputs ? load4(C + four) : b;
          DEBLUR_UNROLL
          for (int i = 0; i < 4; ++i) {
            float& state = h[four + i];
            state = fmaf(decay_of(delta * A[four + i]), state, delta_u * b.item[i]);
            if (Outputs) y = fmaf(state, c.item[i], y);
          }
        }
        if (Outputs) tile.y[(warp * kTileSteps + t) * kPitch + lane] = y;
        else delta_sum += delta;
      }
      // The sums of all warps must be there before y is put together. No barrier follows: what
      // write_outputs() reads of u is overwritten by the same thread, and y only behind the next
      // one.
      block.sync();
      if (Outputs) write_outputs(block, tile, image, first, at, count);
    }
    // Phase 1 ends with the chunk state of every thread. delta is the same for all states of a
    // channel, so that one warp writes its sum.
    if constexpr (!Outputs) {
      if (channel >= a.d) return;
      DEBLUR_UNROLL
      for (int i = 0; i < States; ++i) {
        const int64_t s = warp * States + i;
        if (s < a.states) a.chunk_state[((before + 1) * a.states + s) * a.d + channel] = h[i];
      }
      if (warp == 0) a.chunk_delta[(before + 1) * a.d + channel] = delta_sum;
    }
  }

 private:
  // Loads steps [at, at + count) into the tile. The lanes of a warp read 32 neighbouring steps of
  // one channel or of one state, which is one coalesced access.
  template <typename Block>
  DEBLUR_FN void load(const Block& block, Shared& tile, int64_t image, int64_t first, int64_t at,
                      int count) const {
    const int t = block.thread % kLanes, warp = block.thread / kLanes;
    const int warps = block.threads / kLanes;
    // Channels: delta after bias and softplus, and its product with u, which all states need.
    for (int row = warp; row < kLanes; row += warps) {
      const int64_t channel = first + row, from = (image * a.d + channel) * a.length + at + t;
      if (t >= count || channel >= a.d) continue;
      float delta = a.delta[from];
      if (a.delta_bias != nullptr) delta += a.delta_bias[channel];
      if (a.delta_softplus) delta = softplus(delta);
      const float u = to_float(a.u[from]);
      tile.delta[row * kPitch + t] = delta;
      tile.delta_u[row * kPitch + t] = delta * u;
      if (Outputs) tile.u[row * kPitch + t] = u;
    }
    // States: transposed, so that the states of one step lie side by side.
    for (int64_t s = warp; s < warps * States; s += warps) {
      const int64_t from = (image * a.states + s) * a.length + at + t;
      const bool used = s < a.states && t < count;
      tile.B[t * Shared::kStatesPitch + s] = used ? to_float(a.B[from]) : 0.0f;
      if (Outputs) tile.C[t * Shared::kStatesPitch + s] = used ? to_float(a.C[from]) : 0.0f;
    }
  }

  // Writes y of steps [at, at + count): adds the skip term D u and the sums of all warps, and
  // applies the gate. Every thread handles the channels and steps that it loaded, hence the next
  // tile may be loaded without a barrier in between.
  template <typename Block>
  DEBLUR_FN void write_outputs(const Block& block, const Shared& tile, int64_t image, int64_t first,
                               int64_t at, int count) const {
    const int t = block.thread % kLanes, warp = block.thread / kLanes;
    const int warps = block.threads / kLanes;
    for (int row = warp; row < kLanes; row += warps) {
      const int64_t channel = first + row, to = (image * a.d + channel) * a.length + at + t;
      if (t >= count || channel >= a.d) continue;
      float y = a.D[channel] * tile.u[row * kPitch + t];
      for (int p = 0; p < warps; ++p) y += tile.y[(p * kTileSteps + t) * kPitch + row];
      if (a.z != nullptr) y *= silu(to_float(a.z[to]));
      a.y[to] = from_float<T>(y);
    }
  }
};

// Phase 2: replaces the chunk states, which were computed from a state of zero, by the true states
// at the end of the chunks. One thread for each state of each channel goes through the chunks:
// h_chunk = exp(A delta_sum) h_chunk-1 + chunk_state.
template <typename T>
struct CarryChunkStates {
  static constexpr int kThreads = 64;
  // Chunks that are read before the first of them is used: their loads are independent, so that the
  // latency of global memory is paid once for 16 chunks and not for each.
  static constexpr int kTogether = 16;
  struct Shared {};
  ScanArguments<T> a;

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared&) const {
    const int64_t id = block.index * kThreads + block.thread;
    if (id >= a.n * a.states * a.d) return;
    const int64_t channel = id % a.d, s = id / a.d % a.states, image = id / (a.d * a.states);
    const int64_t chunks = a.chunks - 1, stride = a.states * a.d;
    const float A = kLog2E * a.A[channel * a.states + s];
    float* states = a.chunk_state + (image * chunks * a.states + s) * a.d + channel;
    const float* delta_sums = a.chunk_delta + image * chunks * a.d + channel;
    float h = 0.0f;
    for (int64_t first = 0; first < chunks; first += kTogether) {
      // Read a group of chunks; behind the last chunk the loads repeat it and are not used.
      float end[kTogether], delta_sum[kTogether];
      DEBLUR_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        const int64_t chunk = smaller(first + i, chunks - 1);
        end[i] = states[chunk * stride];
        delta_sum[i] = delta_sums[chunk * a.d];
      }
      // Carry the state through them.
      DEBLUR_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        if (first + i >= chunks) return;
        h = fmaf(decay_of(A * delta_sum[i]), h, end[i]);
        states[(first + i) * stride] = h;
      }
    }
  }
};

}  // namespace deblur
