// A few steps of the scan for as many channels as a vector has lanes.
#pragma once

#include "../common/vec_math.h"

namespace deblur {
namespace DEBLUR_TARGET {

// Steps of a block: its tiles and the states of a group of channels stay in L1.
constexpr int64_t kSteps = 64;

// Tiles [kSteps][kWidth]: step sizes, step size times value, and the sums over the states.
struct Tiles {
  const float *step, *entering;
  float* sum;
};

#if defined(__AVX512F__)
constexpr int kTogether = 8;  // states in registers, with their rates
#else
constexpr int kTogether = 4;
#endif

// Where a state and a step have their numbers in `enter` and `read`: [states][kSteps], or with the
// states last [kSteps][all].
template <bool Last>
struct Place {
  int64_t all;
  DEBLUR_INLINE_METHOD int64_t operator()(int64_t s, int64_t t) const {
    return Last ? t * all + s : s * kSteps + t;
  }
};

// `Count` states through all steps. decay = 2^(step * rate); rates and states [Count][kWidth].
template <int Count, bool Read, bool Last>
DEBLUR_INLINE void advance(const Tiles& tiles, int64_t steps, const float* rates, float* states,
                           const float* enter, const float* read, Place<Last> place) {
  Vec rate[Count], state[Count];
  for (int i = 0; i < Count; ++i) {
    rate[i] = load(rates + i * kWidth);
    state[i] = load(states + i * kWidth);
  }
  for (int64_t t = 0; t < steps; ++t) {
    const Vec step = load(tiles.step + t * kWidth), entering = load(tiles.entering + t * kWidth);
    Vec sum = set(0.0f);
    for (int i = 0; i < Count; ++i) {
      state[i] = fma(exp2(step * rate[i]), state[i], entering * set(enter[place(i, t)]));
      if (Read) sum = fma(state[i], set(read[place(i, t)]), sum);
    }
    if (Read) store(tiles.sum + t * kWidth, load(tiles.sum + t * kWidth) + sum);
  }
  for (int i = 0; i < Count; ++i) store(states + i * kWidth, state[i]);
}

template <bool Read, bool Last>
static inline void advance_all(const Tiles& tiles, int64_t steps, int64_t count,
                               const float* rates, float* states, const float* enter,
                               const float* read) {
  const Place<Last> place = {count};
  int64_t s = 0;
  for (; s + kTogether <= count; s += kTogether)
    advance<kTogether, Read>(tiles, steps, rates + s * kWidth, states + s * kWidth,
                             enter + place(s, 0), read + place(s, 0), place);
  for (; s < count; ++s)
    advance<1, Read>(tiles, steps, rates + s * kWidth, states + s * kWidth, enter + place(s, 0),
                     read + place(s, 0), place);
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
