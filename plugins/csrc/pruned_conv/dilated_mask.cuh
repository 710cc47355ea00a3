// The pixels of the dilated mask as a list in ascending order, which never leaves the device:
// blocks count theirs, one block adds the counts up, blocks write.
#pragma once

#include "../common/launch.cuh"
#include "../common/prefix.cuh"

namespace deblur {

constexpr int kListThreads = 256;
constexpr int kListPixels = 4 * kListThreads;  // of a block

// Images one below the other: pixel numbers (image * h + y) * w + x, and `lines` = n * h of them.
template <typename T>
struct Mask {
  const T* mask;
  int64_t lines, h, w;

  DEBLUR_FN bool has(int64_t pixel) const { return number(mask[pixel]) > 0.5f; }
  // Whether a pixel or one of its neighbours in the same image is masked.
  DEBLUR_FN bool near(int64_t pixel) const {
    const int64_t line = pixel / w, x = pixel % w, y = line % h;
    const int64_t top = y > 0 ? line - 1 : line, bottom = y + 1 < h ? line + 1 : line;
    const int64_t left = x > 0 ? x - 1 : x, right = x + 1 < w ? x + 1 : x;
    for (int64_t i = top; i <= bottom; ++i)
      for (int64_t j = left; j <= right; ++j)
        if (has(i * w + j)) return true;
    return false;
  }
  DEBLUR_FN int64_t pixels() const { return lines * w; }
};

// counts [blocks]: listed pixels of every block of kListPixels.
template <typename T>
struct CountPixels {
  static constexpr int kThreads = kListThreads;
  struct Shared {
    int room[2 * kThreads];
  };
  Mask<T> mask;
  int32_t* counts;

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    int own = 0, total;
    for (int i = 0; i < kListPixels; i += kThreads) {
      const int64_t pixel = block.index * kListPixels + i + block.thread;
      own += pixel < mask.pixels() && mask.near(pixel);
    }
    sum_before(block, shared.room, own, &total);
    if (block.thread == 0) counts[block.index] = total;
  }
};

// Counts become sums of those before; one block.
struct AddCounts {
  static constexpr int kThreads = 1024;
  struct Shared {
    int room[2 * kThreads];
  };
  int32_t* counts;
  int64_t blocks;

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    int before = 0;
    for (int64_t first = 0; first < blocks; first += kThreads) {
      const int64_t i = first + block.thread;
      int total;
      const int sum = sum_before(block, shared.room, i < blocks ? counts[i] : 0, &total);
      if (i < blocks) counts[i] = before + sum;
      before += total;
    }
  }
};

// The list; places [pixels], 1 + the place of a pixel in it, 0 for those that are not; firsts
// [lines + 1], how many are listed before each line.
template <typename T>
struct ListPixels {
  static constexpr int kThreads = kListThreads;
  struct Shared {
    int room[2 * kThreads];
  };
  Mask<T> mask;
  const int32_t* counts;
  int32_t *list, *places, *firsts;

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    int before = counts[block.index];
    for (int i = 0; i < kListPixels; i += kThreads) {
      const int64_t pixel = block.index * kListPixels + i + block.thread;
      const bool listed = pixel < mask.pixels() && mask.near(pixel);
      int total;
      const int place = before + sum_before(block, shared.room, listed, &total);
      before += total;
      if (pixel >= mask.pixels()) continue;
      if (listed) list[place] = static_cast<int32_t>(pixel);
      places[pixel] = listed ? place + 1 : 0;
      if (pixel % mask.w == 0) firsts[pixel / mask.w] = place;
      if (pixel == mask.pixels() - 1) firsts[mask.lines] = place + listed;
    }
  }
};

}  // namespace deblur
