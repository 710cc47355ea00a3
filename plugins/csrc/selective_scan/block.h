// The recurrence of SelectiveScan over a block of steps, for one group of channels: as many as a
// vector has lanes, side by side, because B and C are the same for all channels.
//
//   h_t[d, s] = 2^(delta_t[d] A[d, s]) h_{t-1}[d, s] + (delta_t[d] u_t[d]) B_t[s]
//   y_t[d]   += C_t[s] h_t[d, s]
//
// A is multiplied by log2(e) beforehand.
#pragma once

#include "../common/vec_math.h"

namespace deblur {
namespace DEBLUR_TARGET {

// Steps of a block: so few that its tiles and the states of the group stay in the L1 cache.
constexpr int64_t kSteps = 64;

// The tiles of a block, each [kSteps][kWidth].
struct Tiles {
  const float *delta, *delta_u;  // delta_u is delta * u
  float* y;                      // in: D u; out: D u plus the sum over the states
};

#if defined(__AVX512F__)
constexpr int kTogether = 8;  // states that are held in registers, with their A
#else
constexpr int kTogether = 4;
#endif

// The position of a state and a step in B and C, which are [states][kSteps] or, with the channels
// last, [kSteps][all states].
template <bool ChannelsLast>
struct Position {
  int64_t all;
  DEBLUR_INLINE_METHOD int64_t operator()(int64_t s, int64_t t) const {
    return ChannelsLast ? t * all + s : s * kSteps + t;
  }
};

// Advances `Count` states through all steps of the block; with `Outputs` it adds their part of y.
// A and h [Count][kWidth]; B and C begin at the first of these states.
template <int Count, bool Outputs, bool ChannelsLast>
DEBLUR_INLINE void advance(const Tiles& tiles, int64_t steps, const float* A, float* h,
                           const float* B, const float* C, Position<ChannelsLast> position) {
  // A and h stay in registers. The loops over `Count` are unrolled, so that the states give the
  // processor independent chains of fused multiply-adds that hide their latency.
  Vec A_i[Count], h_i[Count];
  for (int i = 0; i < Count; ++i) {
    A_i[i] = load(A + i * kWidth);
    h_i[i] = load(h + i * kWidth);
  }
  for (int64_t t = 0; t < steps; ++t) {
    const Vec delta = load(tiles.delta + t * kWidth), delta_u = load(tiles.delta_u + t * kWidth);
    Vec y = set(0.0f);
    for (int i = 0; i < Count; ++i) {
      h_i[i] = fma(exp2(delta * A_i[i]), h_i[i], delta_u * set(B[position(i, t)]));
      if (Outputs) y = fma(h_i[i], set(C[position(i, t)]), y);
    }
    if (Outputs) store(tiles.y + t * kWidth, load(tiles.y + t * kWidth) + y);
  }
  for (int i = 0; i < Count; ++i) store(h + i * kWidth, h_i[i]);
}

// The same for all `count` states: groups of kTogether, then one at a time.
template <bool Outputs, bool ChannelsLast>
static inline void advance_all(const Tiles& tiles, int64_t steps, int64_t count, const float* A,
                               float* h, const float* B, const float* C) {
  const Position<ChannelsLast> position = {count};
  int64_t s = 0;
  for (; s + kTogether <= count; s += kTogether)
    advance<kTogether, Outputs>(tiles, steps, A + s * kWidth, h + s * kWidth, B + position(s, 0),
                                C + position(s, 0), position);
  for (; s < count; ++s)
    advance<1, Outputs>(tiles, steps, A + s * kWidth, h + s * kWidth, B + position(s, 0),
                        C + position(s, 0), position);
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
