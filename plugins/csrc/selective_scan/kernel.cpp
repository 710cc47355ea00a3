// SelectiveScan: channels in the lanes of a vector, states in L1, blocks of steps.
//
// A unit is one image and one group of kWidth channels. Units run side by side; where there are
// far fewer than threads, chunks of the sequence do as well: first every chunk from a state of
// zero, then the states are carried from chunk to chunk, then every chunk from its right state.
// The decay over a chunk is 2^(rate * sum of its steps): nothing is divided.
#include <string.h>

#include "../common/buffer.h"
#include "../common/features.h"
#include "../common/flush.h"
#include "../common/transpose.h"
#include "arguments.h"
#include "block.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kTile = kSteps * kWidth;
// Bounds of steps and rates: beyond them a decay is 0 (or infinite) for sure, and within them
// their product is finite.
constexpr float kLargestStep = 1e30f, kLargestRate = 1e8f;
constexpr int64_t kShortestChunk = 2 * kSteps;

// NaN stays NaN.
DEBLUR_INLINE Vec bounded(Vec x, float most) { return min(set(most), max(set(-most), x)); }

// One unit in one thread; `memory` holds size(states) floats. Features are of T, with `Last` behind
// the steps.
template <class T, bool Last>
class Channels {
 public:
  static int64_t size(int64_t states) { return 6 * kTile + states * (2 * kSteps + 2 * kWidth); }

  Channels(const ScanArguments& a, int64_t unit, float* memory) : a_(a) {
    const int64_t groups = (a.d + kWidth - 1) / kWidth;
    image_ = unit / groups;
    first_ = unit % groups * kWidth;
    used_ = a.d - first_ < kWidth ? a.d - first_ : kWidth;
    float** tiles[] = {&u_, &step_, &entering_, &sum_, &gate_, &out_};
    for (float** tile : tiles) {
      *tile = memory;
      memory += kTile;
    }
    enter_ = memory;
    read_ = enter_ + a.states * kSteps;
    rates_ = read_ + a.states * kSteps;
    states = rates_ + a.states * kWidth;
    memset(u_, 0, sizeof(float) * 6 * kTile);  // lanes without a channel stay zero
    memset(rates_, 0, sizeof(float) * static_cast<size_t>(a.states * kWidth));
    memset(states, 0, sizeof(float) * static_cast<size_t>(a.states * kWidth));
    float skip[kWidth] = {}, bias[kWidth] = {};
    for (int64_t lane = 0; lane < used_; ++lane) {
      const int64_t channel = first_ + lane;
      for (int64_t s = 0; s < a.states; ++s)
        rates_[s * kWidth + lane] = kLog2E * a.rates[channel * a.states + s];
      skip[lane] = a.skip[channel];
      if (a.bias != nullptr) bias[lane] = a.bias[channel];
    }
    for (int64_t s = 0; s < a.states; ++s)
      store(rates_ + s * kWidth, bounded(load(rates_ + s * kWidth), kLargestRate));
    skip_ = load(skip);
    bias_ = load(bias);
    total_ = set(0.0f);
  }

  // Steps [begin, end). With Read the results are written, without only the states advance.
  template <bool Read>
  void scan(int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t += kSteps) {
      const int64_t steps = end - t < kSteps ? end - t : kSteps;
      prepare<Read>(t, steps);
      const Tiles tiles = {step_, entering_, sum_};
      advance_all<Read, Last>(tiles, steps, a_.states, rates_, states, enter_, read_);
      if (Read) finish(t, steps);
    }
  }

  // The decay that all steps together have on `state` s of every channel.
  Vec decay(int64_t s) const {
    return exp2(bounded(total_, kLargestStep) * load(rates_ + s * kWidth));
  }
  void store_total(float* to) const { store(to, total_); }
  void load_total(const float* from) { total_ = load(from); }

  float* states;  // [states][kWidth]

 private:
  // Channel `first_` of step t in u or the like.
  int64_t place(int64_t t) const {
    return Last ? (image_ * a_.length + t) * a_.d + first_ : (image_ * a_.d + first_) * a_.length + t;
  }

  // A tile of this block, and a hint at the next block where its rows lie far apart.
  void fetch(const void* tensor, int64_t t, int64_t steps, float* tile) const {
    const T* from = static_cast<const T*>(tensor) + place(t);
    if constexpr (Last) {
      for (int64_t i = 0; i < steps; ++i) copy(from + i * a_.d, used_, tile + i * kWidth);
      return;
    } else {
      transpose(from, a_.length, used_, steps, tile, kWidth);
    }
    if (t + kSteps >= a_.length) return;
    for (int64_t lane = 0; lane < used_; ++lane)
      DEBLUR_PREFETCH(from + lane * a_.length + kSteps, sizeof(float) * kSteps);
  }

  void fetch_rows(const void* tensor, int64_t t, int64_t steps, float* rows) const {
    const T* from = static_cast<const T*>(tensor);
    if constexpr (Last) {
      copy(from + (image_ * a_.length + t) * a_.states, steps * a_.states, rows);
      return;
    }
    from += image_ * a_.states * a_.length + t;
    for (int64_t s = 0; s < a_.states; ++s, from += a_.length) {
      copy(from, steps, rows + s * kSteps);
      if (t + kSteps < a_.length) DEBLUR_PREFETCH(from + kSteps, sizeof(float) * kSteps);
    }
  }

  template <bool Read>
  void prepare(int64_t t, int64_t steps) {
    fetch(a_.u, t, steps, u_);
    fetch(a_.delta, t, steps, step_);
    fetch_rows(a_.enter, t, steps, enter_);
    if (Read) fetch_rows(a_.read, t, steps, read_);
    for (int64_t i = 0; i < steps * kWidth; i += kWidth) {
      Vec step = load(step_ + i) + bias_;
      if (a_.softplus) step = softplus(step);
      const Vec u = load(u_ + i);
      store(entering_ + i, step * u);
      step = bounded(step, kLargestStep);
      store(step_ + i, step);
      if (Read) store(sum_ + i, skip_ * u);
      else total_ = total_ + step;
    }
  }

  void finish(int64_t t, int64_t steps) {
    const float* result = sum_;
    if (a_.gate != nullptr) {
      fetch(a_.gate, t, steps, gate_);
      for (int64_t i = 0; i < steps * kWidth; i += kWidth)
        store(out_ + i, load(sum_ + i) * silu(load(gate_ + i)));
      result = out_;
    }
    T* y = static_cast<T*>(a_.y) + place(t);
    if constexpr (Last)
      for (int64_t i = 0; i < steps; ++i) copy(result + i * kWidth, used_, y + i * a_.d);
    else
      transpose(result, kWidth, steps, used_, y, a_.length);
  }

  const ScanArguments& a_;
  int64_t image_, first_, used_;
  float *u_, *step_, *entering_, *sum_, *gate_, *out_, *enter_, *read_, *rates_;
  Vec skip_, bias_, total_;
};

int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

template <class Unit>
int32_t scan_units(const ScanArguments& a, Team& team, int64_t units) {
  const int64_t tasks = at_most(units, 8 * team.size()), size = Unit::size(a.states);
  Floats memory(tasks * size);
  if (!memory) return DEBLUR_NO_MEMORY;
  parallel_for(team, tasks, [&](int64_t task) {
    FlushToZero flush;
    for (int64_t unit = units * task / tasks; unit < units * (task + 1) / tasks; ++unit)
      Unit(a, unit, memory.data() + task * size).template scan<true>(0, a.length);
  });
  return DEBLUR_OK;
}

// Chunk 0 starts from zero anyway, so it is done after the first of the two passes; the last one
// has no successor that wants its end. Hence both passes have chunks - 1 tasks a unit.
template <class Unit>
int32_t scan_chunks(const ScanArguments& a, Team& team, int64_t units, int64_t chunks) {
  const int64_t rounded = (a.length + kSteps - 1) / kSteps;
  const auto begin = [&](int64_t chunk) {
    return at_most(rounded * chunk / chunks * kSteps, a.length);
  };
  const int64_t most = chunks - 1, size = Unit::size(a.states);
  const int64_t kept = (a.states + 1) * kWidth;  // end states of a chunk and its sum of steps
  Floats memory(units * most * size), ends(units * most * kept);
  if (!memory || !ends) return DEBLUR_NO_MEMORY;

  parallel_for(team, units * most, [&](int64_t task) {
    FlushToZero flush;
    const int64_t chunk = task % most;
    Unit channels(a, task / most, memory.data() + task * size);
    if (chunk == 0) channels.template scan<true>(0, begin(1));
    else channels.template scan<false>(begin(chunk), begin(chunk + 1));
    float* end = ends.data() + task * kept;
    memcpy(end, channels.states, sizeof(float) * static_cast<size_t>(a.states * kWidth));
    channels.store_total(end + a.states * kWidth);
  });
  for (int64_t task = 1; task < units * most; ++task) {
    if (task % most == 0) continue;
    float *end = ends.data() + task * kept, *before = end - kept;
    Unit channels(a, task / most, memory.data());
    channels.load_total(end + a.states * kWidth);
    for (int64_t s = 0; s < a.states; ++s)
      store(end + s * kWidth,
            fma(channels.decay(s), load(before + s * kWidth), load(end + s * kWidth)));
  }
  parallel_for(team, units * most, [&](int64_t task) {
    FlushToZero flush;
    const int64_t chunk = task % most + 1;
    Unit channels(a, task / most, memory.data() + task * size);
    memcpy(channels.states, ends.data() + task * kept,
           sizeof(float) * static_cast<size_t>(a.states * kWidth));
    channels.template scan<true>(begin(chunk), begin(chunk + 1));
  });
  return DEBLUR_OK;
}

template <class Unit>
int32_t scan(const ScanArguments& a, Team& team) {
  const int64_t units = a.n * ((a.d + kWidth - 1) / kWidth);
  // Every chunk but two is scanned twice, so that chunks pay from three threads a unit on.
  const int64_t chunks = at_most(team.size() / units + 1, a.length / kShortestChunk);
  return chunks >= 4 ? scan_chunks<Unit>(a, team, units, chunks) : scan_units<Unit>(a, team, units);
}

}  // namespace

int32_t selective_scan(const ScanArguments& a, Team& team) {
  if (a.features == DEBLUR_LAST) return scan<Channels<float, true>>(a, team);
  if (a.features == DEBLUR_LAST_BF16) return scan<Channels<Bf16, true>>(a, team);
  return scan<Channels<float, false>>(a, team);
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
