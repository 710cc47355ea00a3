// The CPU kernel of SelectiveScan, the recurrence of Mamba (Gu and Dao 2023, arXiv:2312.00752,
// Sec. 3.2, Alg. 2; the formula is in block.h). Channels lie in the lanes of a vector, the states
// of a group of channels in the L1 cache, and the sequence is computed in blocks of steps.
//
// A group is kWidth channels of one image. Groups run in parallel. Where there are far fewer groups
// than threads, chunks of the sequence run in parallel as well: first every chunk starts from a
// state of zero, then the chunk states are carried from chunk to chunk, then every chunk starts
// from its true state. The decay over a chunk is exp(A sum(delta)): nothing is divided.
#include <string.h>

#include "../common/bf16.h"
#include "../common/buffer.h"
#include "../common/flush.h"
#include "../common/transpose.h"
#include "arguments.h"
#include "block.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kTile = kSteps * kWidth;
// Bounds of delta and A: beyond them a decay is 0 (or infinite) in any case, and within them their
// product is finite, which exp2 asks for.
constexpr float kLargestDelta = 1e30f, kLargestA = 1e8f;
constexpr int64_t kShortestChunk = 2 * kSteps;

// x limited to [-most, most]; NaN stays NaN.
DEBLUR_INLINE Vec bounded(Vec x, float most) { return min(set(most), max(set(-most), x)); }

// One group in one thread. u, delta, B, C, z and y hold T; they are [n, channels, length] or, with
// `ChannelsLast`, [n, length, channels]. `memory` holds size(states) floats.
template <class T, bool ChannelsLast>
class ChannelGroup {
 public:
  static int64_t size(int64_t states) { return 6 * kTile + states * (2 * kSteps + 2 * kWidth); }

  ChannelGroup(const ScanArguments& a, int64_t group, float* memory) : a_(a) {
    const int64_t groups = (a.d + kWidth - 1) / kWidth;
    image_ = group / groups;
    first_ = group % groups * kWidth;
    used_ = a.d - first_ < kWidth ? a.d - first_ : kWidth;
    // Divide the memory among the tiles, the rows of B and C, and A and h [states][kWidth].
    float** tiles[] = {&u_, &delta_, &delta_u_, &y_, &z_, &gated_};
    for (float** tile : tiles) {
      *tile = memory;
      memory += kTile;
    }
    B_ = memory;
    C_ = B_ + a.states * kSteps;
    A_ = C_ + a.states * kSteps;
    h = A_ + a.states * kWidth;
    memset(u_, 0, sizeof(float) * 6 * kTile);  // lanes without a channel stay zero
    memset(A_, 0, sizeof(float) * static_cast<size_t>(a.states * kWidth));
    memset(h, 0, sizeof(float) * static_cast<size_t>(a.states * kWidth));
    // What belongs to a channel, one lane for each. A gets its factor of log2(e) here, once.
    float D[kWidth] = {}, delta_bias[kWidth] = {};
    for (int64_t lane = 0; lane < used_; ++lane) {
      const int64_t channel = first_ + lane;
      for (int64_t s = 0; s < a.states; ++s)
        A_[s * kWidth + lane] = kLog2E * a.A[channel * a.states + s];
      D[lane] = a.D[channel];
      if (a.delta_bias != nullptr) delta_bias[lane] = a.delta_bias[channel];
    }
    for (int64_t s = 0; s < a.states; ++s)
      store(A_ + s * kWidth, bounded(load(A_ + s * kWidth), kLargestA));
    D_ = load(D);
    delta_bias_ = load(delta_bias);
    delta_sum_ = set(0.0f);
  }

  // Scans steps [begin, end). With `Outputs` y is written; without, only h and the sum of delta
  // advance.
  template <bool Outputs>
  void scan(int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t += kSteps) {
      const int64_t steps = end - t < kSteps ? end - t : kSteps;
      load_block<Outputs>(t, steps);
      const Tiles tiles = {delta_, delta_u_, y_};
      advance_all<Outputs, ChannelsLast>(tiles, steps, a_.states, A_, h, B_, C_);
      if (Outputs) write_block(t, steps);
    }
  }

  // The decay of state s over all steps scanned so far, for every channel: exp(A sum(delta)).
  Vec decay(int64_t s) const {
    return exp2(bounded(delta_sum_, kLargestDelta) * load(A_ + s * kWidth));
  }
  void store_delta_sum(float* to) const { store(to, delta_sum_); }
  void load_delta_sum(const float* from) { delta_sum_ = load(from); }

  float* h;  // [states][kWidth]

 private:
  // The position of channel `first_` at step t in u, delta, z and y.
  int64_t position(int64_t t) const {
    return ChannelsLast ? (image_ * a_.length + t) * a_.d + first_
                        : (image_ * a_.d + first_) * a_.length + t;
  }

  // Loads a tile [steps][kWidth] of u, delta or z. Where the rows of the next block lie far apart,
  // it is prefetched: a row is too short for the hardware to notice.
  void fetch(const void* tensor, int64_t t, int64_t steps, float* tile) const {
    const T* from = static_cast<const T*>(tensor) + position(t);
    if constexpr (ChannelsLast) {
      for (int64_t i = 0; i < steps; ++i) copy(from + i * a_.d, used_, tile + i * kWidth);
      return;
    } else {
      transpose(from, a_.length, used_, steps, tile, kWidth);
    }
    if (t + kSteps >= a_.length) return;
    for (int64_t lane = 0; lane < used_; ++lane)
      DEBLUR_PREFETCH(from + lane * a_.length + kSteps, sizeof(float) * kSteps);
  }

  // Loads the rows of B or C that advance_all reads, in the layout that Position describes.
  void fetch_rows(const void* tensor, int64_t t, int64_t steps, float* rows) const {
    const T* from = static_cast<const T*>(tensor);
    if constexpr (ChannelsLast) {
      copy(from + (image_ * a_.length + t) * a_.states, steps * a_.states, rows);
      return;
    }
    from += image_ * a_.states * a_.length + t;
    for (int64_t s = 0; s < a_.states; ++s, from += a_.length) {
      copy(from, steps, rows + s * kSteps);
      if (t + kSteps < a_.length) DEBLUR_PREFETCH(from + kSteps, sizeof(float) * kSteps);
    }
  }

  // Prepares the tiles of a block: delta after its bias and softplus, delta u, and y = D u, to
  // which the states are added.
  template <bool Outputs>
  void load_block(int64_t t, int64_t steps) {
    fetch(a_.u, t, steps, u_);
    fetch(a_.delta, t, steps, delta_);
    fetch_rows(a_.B, t, steps, B_);
    if (Outputs) fetch_rows(a_.C, t, steps, C_);
    for (int64_t i = 0; i < steps * kWidth; i += kWidth) {
      Vec delta = load(delta_ + i) + delta_bias_;
      if (a_.delta_softplus) delta = softplus(delta);
      const Vec u = load(u_ + i);
      store(delta_u_ + i, delta * u);
      delta = bounded(delta, kLargestDelta);
      store(delta_ + i, delta);
      if (Outputs) store(y_ + i, D_ * u);
      else delta_sum_ = delta_sum_ + delta;
    }
  }

  // Applies the gate, where there is one, and writes y.
  void write_block(int64_t t, int64_t steps) {
    const float* result = y_;
    if (a_.z != nullptr) {
      fetch(a_.z, t, steps, z_);
      for (int64_t i = 0; i < steps * kWidth; i += kWidth)
        store(gated_ + i, load(y_ + i) * silu(load(z_ + i)));
      result = gated_;
    }
    T* y = static_cast<T*>(a_.y) + position(t);
    if constexpr (ChannelsLast)
      for (int64_t i = 0; i < steps; ++i) copy(result + i * kWidth, used_, y + i * a_.d);
    else transpose(result, kWidth, steps, used_, y, a_.length);
  }

  const ScanArguments& a_;
  int64_t image_, first_, used_;
  float *u_, *delta_, *delta_u_, *y_, *z_, *gated_, *B_, *C_, *A_;
  Vec D_, delta_bias_, delta_sum_;
};

// Every group is scanned from the first step to the last; a task has several groups.
template <class Group>
int32_t scan_groups(const ScanArguments& a, ThreadPool& pool, int64_t groups) {
  const int64_t tasks = at_most(groups, 8 * pool.size()), size = Group::size(a.states);
  FloatBuffer memory(tasks * size);
  if (!memory) return DEBLUR_NO_MEMORY;
  parallel_for(pool, tasks, [&](int64_t task) {
    FlushToZero flush;
    for (int64_t group = groups * task / tasks; group < groups * (task + 1) / tasks; ++group)
      Group(a, group, memory.data() + task * size).template scan<true>(0, a.length);
  });
  return DEBLUR_OK;
}

// The three phases over chunks. Chunk 0 starts from zero anyway, so that its outputs are written in
// the first phase; the last chunk has no successor that needs its state, so that the first phase
// leaves it out. Hence both parallel phases have chunks - 1 tasks for each group.
template <class Group>
int32_t scan_chunks(const ScanArguments& a, ThreadPool& pool, int64_t groups, int64_t chunks) {
  const int64_t rounded = (a.length + kSteps - 1) / kSteps;
  const auto begin = [&](int64_t chunk) {
    return at_most(rounded * chunk / chunks * kSteps, a.length);
  };
  const int64_t most = chunks - 1, size = Group::size(a.states);
  // What a chunk leaves: its chunk state [states][kWidth] and its sum of delta [kWidth].
  const int64_t kept = (a.states + 1) * kWidth;
  FloatBuffer memory(groups * most * size), chunk_states(groups * most * kept);
  if (!memory || !chunk_states) return DEBLUR_NO_MEMORY;

  // Phase 1: every chunk but the last from a state of zero.
  parallel_for(pool, groups * most, [&](int64_t task) {
    FlushToZero flush;
    const int64_t chunk = task % most;
    Group channels(a, task / most, memory.data() + task * size);
    if (chunk == 0) channels.template scan<true>(0, begin(1));
    else channels.template scan<false>(begin(chunk), begin(chunk + 1));
    float* state = chunk_states.data() + task * kept;
    memcpy(state, channels.h, sizeof(float) * static_cast<size_t>(a.states * kWidth));
    channels.store_delta_sum(state + a.states * kWidth);
  });
  // Phase 2: carry the chunk states, which is little work: one product for each state and chunk.
  for (int64_t task = 1; task < groups * most; ++task) {
    if (task % most == 0) continue;
    float *state = chunk_states.data() + task * kept, *previous = state - kept;
    Group channels(a, task / most, memory.data());
    channels.load_delta_sum(state + a.states * kWidth);
    for (int64_t s = 0; s < a.states; ++s)
      store(state + s * kWidth,
            fma(channels.decay(s), load(previous + s * kWidth), load(state + s * kWidth)));
  }
  // Phase 3: every chunk but the first from its true state.
  parallel_for(pool, groups * most, [&](int64_t task) {
    FlushToZero flush;
    const int64_t chunk = task % most + 1;
    Group channels(a, task / most, memory.data() + task * size);
    memcpy(channels.h, chunk_states.data() + task * kept,
           sizeof(float) * static_cast<size_t>(a.states * kWidth));
    channels.template scan<true>(begin(chunk), begin(chunk + 1));
  });
  return DEBLUR_OK;
}

template <class Group>
int32_t scan(const ScanArguments& a, ThreadPool& pool) {
  const int64_t groups = a.n * ((a.d + kWidth - 1) / kWidth);
  // All chunks but the first and the last are scanned twice, so that chunks are worth it from three
  // threads for each group on.
  const int64_t chunks = at_most(pool.size() / groups + 1, a.length / kShortestChunk);
  return chunks >= 4 ? scan_chunks<Group>(a, pool, groups, chunks)
                     : scan_groups<Group>(a, pool, groups);
}

}  // namespace

int32_t selective_scan(const ScanArguments& a, ThreadPool& pool) {
  if (a.layout == DEBLUR_NHWC) return scan<ChannelGroup<float, true>>(a, pool);
  if (a.layout == DEBLUR_NHWC_BF16) return scan<ChannelGroup<Bf16, true>>(a, pool);
  return scan<ChannelGroup<float, false>>(a, pool);
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
