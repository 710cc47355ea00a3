// TopPixels: the lowest score that is chosen, eight bits of it at a time; then the list.
#pragma once

#include "../common/launch.cuh"
#include "../common/prefix.cuh"

namespace deblur {

// One block an image: at most some hundred thousand scores, read five times.
struct TopPixels {
  static constexpr int kThreads = 1024;
  static constexpr int kDigits = 256;
  struct Shared {
    int room[2 * kThreads], histogram[kDigits];
    uint32_t border;
    int wanted;  // of those equal to the digits found so far, how many are chosen
  };
  const float* scores;
  int64_t* index;
  int64_t pixels, count;

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    const float* own = scores + block.index * pixels;
    if (block.thread == 0) {
      shared.border = 0;
      shared.wanted = static_cast<int>(count);
    }
    for (int shift = 24; shift >= 0; shift -= 8) {
      if (block.thread < kDigits) shared.histogram[block.thread] = 0;
      block.sync();
      const uint32_t known = shift == 24 ? 0 : ~uint32_t{0} << (shift + 8);
      for (int64_t i = block.thread; i < pixels; i += kThreads) {
        const uint32_t key = place(own[i]);
        if ((key & known) == shared.border) block.add(&shared.histogram[key >> shift & 0xFF], 1);
      }
      block.sync();
      if (block.thread == 0) {
        int digit = kDigits - 1;
        for (; digit > 0 && shared.histogram[digit] < shared.wanted; --digit)
          shared.wanted -= shared.histogram[digit];
        shared.border |= static_cast<uint32_t>(digit) << shift;
      }
      block.sync();
    }
    write(block, shared, own);
  }

 private:
  // Scores in their order as whole numbers; nan is the lowest, and zero has no sign.
  DEBLUR_FN static uint32_t place(float score) {
    if (score != score) return 0;
    const uint32_t bits = bits_of(score == 0.0f ? 0.0f : score);
    return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  }

  template <typename Block>
  DEBLUR_FN void write(Block& block, Shared& shared, const float* own) const {
    const uint32_t border = shared.border;
    const int wanted = shared.wanted;
    int above = 0, equal = 0;  // of the pixels before
    for (int64_t first = 0; first < pixels; first += kThreads) {
      const int64_t i = first + block.thread;
      const uint32_t key = i < pixels ? place(own[i]) : 0;
      const bool higher = i < pixels && key > border, same = i < pixels && key == border;
      int more_above, more_equal;
      const int above_before = above + sum_before(block, shared.room, higher, &more_above);
      const int equal_before = equal + sum_before(block, shared.room, same, &more_equal);
      above += more_above;
      equal += more_equal;
      if (!higher && !(same && equal_before < wanted)) continue;
      const int taken = equal_before < wanted ? equal_before : wanted;
      index[block.index * count + above_before + taken] = i;
    }
  }
};

}  // namespace deblur
