// The CUDA kernel of TopPixels (SAPHN, arXiv:2004.05343): the `count` pixels with the highest
// scores, in ascending order; of equal scores the lower number first. It finds the lowest score
// that is chosen by a radix search, eight bits at a time, and then writes the list.
#pragma once

#include "../common/launch.cuh"
#include "../common/prefix.cuh"

namespace deblur {

// scores [n, pixels]; index [n, count]. One block for each image: it has at most some hundred
// thousand scores, which are read five times.
struct TopPixels {
  static constexpr int kThreads = 1024;
  static constexpr int kDigits = 256;  // values of eight bits
  struct Shared {
    int scratch[2 * kThreads], histogram[kDigits];
    uint32_t threshold;  // the bits found so far of the lowest chosen key
    int wanted;          // how many keys that begin with these bits are chosen
  };
  const float* scores;
  int64_t* index;
  int64_t pixels, count;

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    const float* own = scores + block.index * pixels;
    if (block.thread == 0) {
      shared.threshold = 0;
      shared.wanted = static_cast<int>(count);
    }
    // Find the threshold, from its highest eight bits to its lowest.
    for (int shift = 24; shift >= 0; shift -= 8) {
      if (block.thread < kDigits) shared.histogram[block.thread] = 0;
      block.sync();
      // A histogram of the next eight bits of the keys that agree with the bits found so far.
      const uint32_t known = shift == 24 ? 0 : ~uint32_t{0} << (shift + 8);
      for (int64_t i = block.thread; i < pixels; i += kThreads) {
        const uint32_t key = sort_key(own[i]);
        if ((key & known) == shared.threshold) block.add(&shared.histogram[key >> shift & 0xFF], 1);
      }
      block.sync();
      // From the highest digit down, until as many keys are reached as are wanted: that digit is
      // the next of the threshold, and what lies above it is chosen in any case.
      if (block.thread == 0) {
        int digit = kDigits - 1;
        for (; digit > 0 && shared.histogram[digit] < shared.wanted; --digit)
          shared.wanted -= shared.histogram[digit];
        shared.threshold |= static_cast<uint32_t>(digit) << shift;
      }
      block.sync();
    }
    write(block, shared, own);
  }

 private:
  // A whole number for each score, in the same order; NaN is the lowest, and zero has no sign.
  DEBLUR_FN static uint32_t sort_key(float score) {
    if (score != score) return 0;
    const uint32_t bits = bits_of(score == 0.0f ? 0.0f : score);
    return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  }

  // Writes the pixels above the threshold and the first `wanted` of those that equal it, in
  // ascending order: the position of each is the number of those before it, by prefix sums over the
  // block.
  template <typename Block>
  DEBLUR_FN void write(Block& block, Shared& shared, const float* own) const {
    const uint32_t threshold = shared.threshold;
    const int wanted = shared.wanted;
    int above = 0, equal = 0;  // of the pixels before
    for (int64_t first = 0; first < pixels; first += kThreads) {
      const int64_t i = first + block.thread;
      const uint32_t key = i < pixels ? sort_key(own[i]) : 0;
      const bool higher = i < pixels && key > threshold, same = i < pixels && key == threshold;
      int more_above, more_equal;
      const int above_before = above + sum_before(block, shared.scratch, higher, &more_above);
      const int equal_before = equal + sum_before(block, shared.scratch, same, &more_equal);
      above += more_above;
      equal += more_equal;
      if (!higher && !(same && equal_before < wanted)) continue;
      const int taken = equal_before < wanted ? equal_before : wanted;
      index[block.index * count + above_before + taken] = i;
    }
  }
};

}  // namespace deblur
