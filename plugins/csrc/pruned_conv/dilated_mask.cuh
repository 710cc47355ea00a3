// The pixels of the dilated mask of PrunedConv, as a sorted list that never leaves the device: a
// masked pixel needs the 1x1 result of its 3x3 neighbourhood. Three kernels: CountPixels counts the
// listed pixels of every block, AddCounts adds the counts up, ListPixels writes the list.
#pragma once

#include "../common/launch.cuh"
#include "../common/prefix.cuh"

namespace deblur {

constexpr int kListThreads = 256;
constexpr int kListPixels = 4 * kListThreads;  // pixels of a block

// mask [n, 1, h, w] as `lines` = n * h lines, one image below the other; pixels are numbered
// (image * h + y) * w + x.
template <typename T>
struct Mask {
  const T* mask;
  int64_t lines, h, w;

  DEBLUR_FN bool has(int64_t pixel) const { return to_float(mask[pixel]) > 0.5f; }
  // Whether a pixel or one of its neighbours in the same image is masked.
  DEBLUR_FN bool dilated(int64_t pixel) const {
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

// Writes to counts [blocks] the number of listed pixels in every run of kListPixels.
template <typename T>
struct CountPixels {
  static constexpr int kThreads = kListThreads;
  struct Shared {
    int scratch[2 * kThreads];
  };
  Mask<T> mask;
  int32_t* counts;

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    // Every thread counts several pixels, a block apart, so that neighbouring threads read
    // neighbours.
    int own = 0, total;
    for (int i = 0; i < kListPixels; i += kThreads) {
      const int64_t pixel = block.index * kListPixels + i + block.thread;
      own += pixel < mask.pixels() && mask.dilated(pixel);
    }
    sum_before(block, shared.scratch, own, &total);
    if (block.thread == 0) counts[block.index] = total;
  }
};

// Replaces every count by the sum of those before it (an exclusive prefix sum). One block takes the
// counts in runs of its threads.
struct AddCounts {
  static constexpr int kThreads = 1024;
  struct Shared {
    int scratch[2 * kThreads];
  };
  int32_t* counts;
  int64_t blocks;

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    // `before` is the sum of all runs so far, the same in every thread.
    int before = 0;
    for (int64_t first = 0; first < blocks; first += kThreads) {
      const int64_t i = first + block.thread;
      int total;
      const int sum = sum_before(block, shared.scratch, i < blocks ? counts[i] : 0, &total);
      if (i < blocks) counts[i] = before + sum;
      before += total;
    }
  }
};

// Writes the list of pixel numbers; to positions [pixels] 1 + the position of a pixel in the list,
// 0 for pixels that are not listed; and to line_starts [lines + 1] how many are listed before each
// line.
template <typename T>
struct ListPixels {
  static constexpr int kThreads = kListThreads;
  struct Shared {
    int scratch[2 * kThreads];
  };
  Mask<T> mask;
  const int32_t* counts;
  int32_t *list, *positions, *line_starts;

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    // The position of a pixel: the listed pixels of the blocks before, of this block so far, and of
    // the threads before.
    int before = counts[block.index];
    for (int i = 0; i < kListPixels; i += kThreads) {
      const int64_t pixel = block.index * kListPixels + i + block.thread;
      const bool listed = pixel < mask.pixels() && mask.dilated(pixel);
      int total;
      const int position = before + sum_before(block, shared.scratch, listed, &total);
      before += total;
      if (pixel >= mask.pixels()) continue;
      if (listed) list[position] = static_cast<int32_t>(pixel);
      positions[pixel] = listed ? position + 1 : 0;
      if (pixel % mask.w == 0) line_starts[pixel / mask.w] = position;
      if (pixel == mask.pixels() - 1) line_starts[mask.lines] = position + listed;
    }
  }
};

}  // namespace deblur
