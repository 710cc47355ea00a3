// SelectiveScan in three phases: every chunk of the sequence but the last from a state of zero,
// which gives its end states and the sum of its steps; the states are carried from chunk to chunk;
// every chunk from its right state, which gives the outputs. The decay over a chunk is
// 2^(rate * sum of its steps): nothing is divided, and no logarithm is taken.
//
// A block has 32 channels of one chunk, a lane each, and a warp for every `Held` states, which a
// thread keeps in registers through the chunk. Tiles of 32 steps pass through shared memory: they
// are read and written along the sequence and used along the channels.
#pragma once

#include "../common/launch.cuh"
#include "step.cuh"

namespace deblur {

constexpr int kLanes = 32;
constexpr int kTileSteps = 32;
constexpr int kParts = 4;  // warps of a block, at most
constexpr int kPitch = kTileSteps + 1;

template <typename T>
struct ScanArguments {
  const T *u, *enter, *read, *gate;  // gate and bias may be null
  const float *delta, *rates, *skip, *bias;
  T* y;
  float *carried, *sums;  // [n, chunks - 1, states, d] and [n, chunks - 1, d]
  int64_t n, d, states, length, steps, chunks;
  bool softplus;
};

template <int Held, bool Last>
struct ScanTile {
  static constexpr int kStatesPitch = kParts * Held + 4;  // rows stay aligned to 16 bytes
  alignas(16) float enter[kTileSteps * kStatesPitch];
  alignas(16) float read[Last ? kTileSteps * kStatesPitch : 4];
  float step[kLanes * kPitch], entering[kLanes * kPitch];
  float value[Last ? kLanes * kPitch : 1];
  float sum[Last ? kParts * kTileSteps * kPitch : 1];  // over the states of each warp
};

// One chunk of 32 channels: its end state, or from its right state (Last) its outputs.
template <typename T, int Held, bool Last>
struct ScanChunk {
  static constexpr int kThreads = kLanes * kParts;
  using Shared = ScanTile<Held, Last>;
  ScanArguments<T> a;

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& tile) const {
    const int lane = block.thread % kLanes, part = block.thread / kLanes;
    const int64_t chunks = Last ? a.chunks : a.chunks - 1, groups = ceil_div(a.d, kLanes);
    // Neighbouring blocks read the same steps of B and C.
    const int64_t group = block.index % groups, chunk = block.index / groups % chunks;
    const int64_t image = block.index / (chunks * groups);
    const int64_t first = group * kLanes, channel = first + lane;
    const int64_t begin = chunk * a.steps, end = smaller(begin + a.steps, a.length);

    float rate[Held], state[Held], total = 0.0f;
    const int64_t before = image * (a.chunks - 1) + chunk - 1;
    DEBLUR_UNROLL
    for (int i = 0; i < Held; ++i) {
      const int64_t s = part * Held + i;
      const bool used = channel < a.d && s < a.states;
      rate[i] = used ? kLog2E * a.rates[channel * a.states + s] : 0.0f;
      state[i] = Last && used && chunk > 0 ? a.carried[(before * a.states + s) * a.d + channel]
                                           : 0.0f;
    }
    for (int64_t at = begin; at < end; at += kTileSteps) {
      const int count = static_cast<int>(smaller(kTileSteps, end - at));
      load(block, tile, image, first, at, count);
      block.sync();
      for (int t = 0; t < count; ++t) {
        const float step = tile.step[lane * kPitch + t], x = tile.entering[lane * kPitch + t];
        const float *enter = tile.enter + t * Shared::kStatesPitch + part * Held,
                    *read = tile.read + t * Shared::kStatesPitch + part * Held;
        float sum = 0.0f;
        DEBLUR_UNROLL
        for (int four = 0; four < Held; four += 4) {
          const Four<float> b = load_four(enter + four);
          const Four<float> c = Last ? load_four(read + four) : b;
          DEBLUR_UNROLL
          for (int i = 0; i < 4; ++i) {
            float& h = state[four + i];
            h = fmaf(decay_of(step * rate[four + i]), h, x * b.item[i]);
            if (Last) sum = fmaf(h, c.item[i], sum);
          }
        }
        if (Last) tile.sum[(part * kTileSteps + t) * kPitch + lane] = sum;
        else total += step;
      }
      block.sync();
      if (Last) finish(block, tile, image, first, at, count);
    }
    if constexpr (!Last) {
      if (channel >= a.d) return;
      DEBLUR_UNROLL
      for (int i = 0; i < Held; ++i) {
        const int64_t s = part * Held + i;
        if (s < a.states) a.carried[((before + 1) * a.states + s) * a.d + channel] = state[i];
      }
      if (part == 0) a.sums[(before + 1) * a.d + channel] = total;
    }
  }

 private:
  // Steps [at, at + count): a warp reads 32 steps of a channel or of a state.
  template <typename Block>
  DEBLUR_FN void load(const Block& block, Shared& tile, int64_t image, int64_t first, int64_t at,
                      int count) const {
    const int t = block.thread % kLanes, part = block.thread / kLanes;
    const int parts = block.threads / kLanes;
    for (int row = part; row < kLanes; row += parts) {
      const int64_t channel = first + row, from = (image * a.d + channel) * a.length + at + t;
      if (t >= count || channel >= a.d) continue;
      float step = a.delta[from];
      if (a.bias != nullptr) step += a.bias[channel];
      if (a.softplus) step = softplus(step);
      const float u = number(a.u[from]);
      tile.step[row * kPitch + t] = step;
      tile.entering[row * kPitch + t] = step * u;
      if (Last) tile.value[row * kPitch + t] = u;
    }
    for (int64_t s = part; s < parts * Held; s += parts) {
      const int64_t from = (image * a.states + s) * a.length + at + t;
      const bool used = s < a.states && t < count;
      tile.enter[t * Shared::kStatesPitch + s] = used ? number(a.enter[from]) : 0.0f;
      if (Last) tile.read[t * Shared::kStatesPitch + s] = used ? number(a.read[from]) : 0.0f;
    }
  }

  // Every thread at the channels and steps that it loaded: the next tile may overwrite them.
  template <typename Block>
  DEBLUR_FN void finish(const Block& block, const Shared& tile, int64_t image, int64_t first,
                        int64_t at, int count) const {
    const int t = block.thread % kLanes, part = block.thread / kLanes;
    const int parts = block.threads / kLanes;
    for (int row = part; row < kLanes; row += parts) {
      const int64_t channel = first + row, to = (image * a.d + channel) * a.length + at + t;
      if (t >= count || channel >= a.d) continue;
      float y = a.skip[channel] * tile.value[row * kPitch + t];
      for (int p = 0; p < parts; ++p) y += tile.sum[(p * kTileSteps + t) * kPitch + row];
      if (a.gate != nullptr) y *= silu(number(a.gate[to]));
      a.y[to] = rounded<T>(y);
    }
  }
};

// The states at the end of every chunk, in place of those it ended in from a state of zero.
template <typename T>
struct ScanCarry {
  static constexpr int kThreads = 64;
  static constexpr int kTogether = 16;  // chunks that are read before the first is used
  struct Shared {};
  ScanArguments<T> a;

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared&) const {
    const int64_t id = block.index * kThreads + block.thread;
    if (id >= a.n * a.states * a.d) return;
    const int64_t channel = id % a.d, s = id / a.d % a.states, image = id / (a.d * a.states);
    const int64_t chunks = a.chunks - 1, stride = a.states * a.d;
    const float rate = kLog2E * a.rates[channel * a.states + s];
    float* ends = a.carried + (image * chunks * a.states + s) * a.d + channel;
    const float* sums = a.sums + image * chunks * a.d + channel;
    float h = 0.0f;
    for (int64_t first = 0; first < chunks; first += kTogether) {
      float end[kTogether], sum[kTogether];
      DEBLUR_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        const int64_t chunk = smaller(first + i, chunks - 1);
        end[i] = ends[chunk * stride];
        sum[i] = sums[chunk * a.d];
      }
      DEBLUR_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        if (first + i >= chunks) return;
        h = fmaf(decay_of(rate * sum[i]), h, end[i]);
        ends[(first + i) * stride] = h;
      }
    }
  }
};

}  // namespace deblur
