// PrunedConv: rows of the dilated mask's pixels times the 1x1 weights; then, at masked pixels, the
// depth-wise 3x3 over the rows of their neighbours, and the gate.
//
// Bands of image rows bound what is held of the wide result. Row 0 of a band is zero: it stands
// for everything outside the image (inside, a masked pixel's neighbours are all in the list).
#include <string.h>

#include "../common/buffer.h"
#include "../common/features.h"
#include "../common/gemm.h"
#include "../common/transpose.h"
#include "arguments.h"
#include "dilated_mask.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kTile = 4 * kRows;    // pixels of a matrix product by one thread
constexpr int64_t kRun = 32;            // masked pixels whose results are turned at a time
constexpr int64_t kHeld = int64_t{1} << 20;  // floats of a band a thread, unless one row has more
constexpr int64_t kTaps = 9;

int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

// The weights as the kernels read them; both halves of the channels are padded to vectors.
class Weights {
 public:
  Weights(const PrunedArguments& a, bool in_pairs)
      : half(round_up(a.c, kWidth)),
        panels(2 * half / kPanel),
        depth(in_pairs ? (a.c + 1) / 2 : a.c),
        pairs(in_pairs),
        memory_(2 * half * (depth + 2 + kTaps)) {
    if (!memory_) return;
    matrix = memory_.data();
    bias1 = matrix + 2 * half * depth;
    taps = bias1 + 2 * half;
    bias2 = taps + 2 * half * kTaps;
    memset(matrix, 0, sizeof(float) * static_cast<size_t>(2 * half * (depth + 2 + kTaps)));
    for (int64_t out = 0; out < 2 * a.c; ++out) {
      const int64_t column = out < a.c ? out : half + out - a.c;
      float* panel = matrix + column / kPanel * depth * kPanel + column % kPanel;
      const float* row = a.weight1 + out * a.c;
      if (pairs)
        for (int64_t c = 0; c < a.c; ++c)
          put(reinterpret_cast<Bf16*>(panel + c / 2 * kPanel) + c % 2, row[c]);
      else
        for (int64_t c = 0; c < a.c; ++c) panel[c * kPanel] = row[c];
      bias1[column] = a.bias1[out];
      bias2[column] = a.bias2[out];
      for (int64_t tap = 0; tap < kTaps; ++tap)
        taps[tap * 2 * half + column] = a.weight2[out * kTaps + tap];
    }
  }
  explicit operator bool() const { return static_cast<bool>(memory_); }

  // rows [count][depth] -> out [count][2 * half].
  void multiply(const float* rows, int64_t count, float* out) const {
#if defined(DEBLUR_PAIRS)
    if (pairs)
      return product<OfPairs>(rows, depth, count, depth, matrix, bias1, panels, out, 2 * half);
#endif
    product(rows, depth, count, depth, matrix, bias1, panels, out, 2 * half);
  }

  int64_t half, panels;
  int64_t depth;  // floats of a row: channels, or pairs of them in bfloat16
  bool pairs;
  float *matrix = nullptr, *bias1 = nullptr, *taps = nullptr, *bias2 = nullptr;

 private:
  Floats memory_;
};

// Length of the run of neighbouring numbers that `list` begins with.
int64_t run_length(const int32_t* list, int64_t count) {
  int64_t length = 1;
  while (length < count && list[length] == list[0] + length) ++length;
  return length;
}

// Rows [count][c] of the listed pixels of x [c, pixels], or [pixels, c].
void gather_first(const float* x, int64_t pixels, int64_t c, const int32_t* list, int64_t count,
            float* rows) {
  for (int64_t i = 0, length; i < count; i += length) {
    length = run_length(list + i, count - i);
    transpose(x + list[i], pixels, c, length, rows + i * c, c);
  }
}
template <class T>
void gather_last(const T* x, int64_t c, const int32_t* list, int64_t count, float* rows) {
  for (int64_t i = 0; i < count; ++i) copy(x + list[i] * c, c, rows + i * c);
}

// The same rows in pairs of bfloat16, of which the last may be half empty.
void gather_pairs(const Bf16* x, int64_t c, const int32_t* list, int64_t count, float* rows) {
  const int64_t depth = (c + 1) / 2;
  for (int64_t i = 0; i < count; ++i) {
    rows[i * depth + depth - 1] = 0.0f;
    memcpy(rows + i * depth, x + list[i] * c, sizeof(Bf16) * static_cast<size_t>(c));
  }
}

// The gated result of one pixel; `near` the nine rows of its neighbourhood.
DEBLUR_INLINE void convolve(const Weights& weights, const float* const* near, float* out) {
  const int64_t half = weights.half;
  for (int64_t c = 0; c < half; c += kWidth) {
    Vec first = load(weights.bias2 + c), second = load(weights.bias2 + half + c);
    for (int64_t tap = 0; tap < kTaps; ++tap) {
      const float* factors = weights.taps + tap * 2 * half + c;
      first = fma(load(near[tap] + c), load(factors), first);
      second = fma(load(near[tap] + half + c), load(factors + half), second);
    }
    store(out + c, first * second);
  }
}

// The wide rows of a band, the first of which has the number `first`.
struct Hidden {
  const Weights& weights;
  const Neighbours& neighbours;
  const float* rows;
  int64_t first, w;

  // The gated result [half] of a masked pixel.
  void convolve_at(int64_t y, int64_t x, float* out) const {
    const float* near[kTaps];
    const int32_t* numbers = neighbours.around(y, x);
    for (int64_t tap = 0; tap < kTaps; ++tap) {
      const int64_t number = numbers[tap / 3 * (w + 2) + tap % 3];
      near[tap] = rows + (number == 0 ? 0 : number - first) * 2 * weights.half;
    }
    convolve(weights, near, out);
  }
};

// One row of an image: x * x everywhere, then the masked pixels. `scratch` holds kRun results.
void finish_first(const PrunedArguments& a, const Hidden& hidden, const float* x, const float* mask,
                  float* y, int64_t row, float* scratch) {
  const int64_t pixels = a.h * a.w, half = hidden.weights.half;
  for (int64_t c = 0, at = row * a.w; c < a.c; ++c, at += pixels) square(x + at, a.w, y + at);
  const float* masked = mask + row * a.w;
  for (int64_t begin = 0; begin < a.w;) {
    int64_t end = begin;
    for (; end < a.w && end < begin + kRun && masked[end] > kMasked; ++end)
      hidden.convolve_at(row, end, scratch + (end - begin) * half);
    transpose(scratch, half, end - begin, a.c, y + row * a.w + begin, pixels);
    begin = end > begin ? end : begin + 1;
  }
}
template <class T>
void finish_last(const PrunedArguments& a, const Hidden& hidden, const T* x, const float* mask,
                 T* y, int64_t row, float* scratch) {
  square(x + row * a.w * a.c, a.w * a.c, y + row * a.w * a.c);
  for (int64_t pixel = row * a.w; pixel < (row + 1) * a.w; ++pixel) {
    if (!(mask[pixel] > kMasked)) continue;
    hidden.convolve_at(row, pixel - row * a.w, scratch);
    copy(scratch, a.c, y + pixel * a.c);
  }
}

// One image of the tensors, of whichever kind.
struct Image {
  const PrunedArguments& a;
  int64_t begin;  // its first value

  void gather(const int32_t* list, int64_t count, bool pairs, float* rows) const {
    if (pairs) gather_pairs(x<Bf16>(), a.c, list, count, rows);
    else if (a.features == DEBLUR_FIRST)
      gather_first(x<float>(), a.h * a.w, a.c, list, count, rows);
    else if (a.features == DEBLUR_LAST) gather_last(x<float>(), a.c, list, count, rows);
    else gather_last(x<Bf16>(), a.c, list, count, rows);
  }
  void finish(const Hidden& hidden, const float* mask, int64_t row, float* scratch) const {
    if (a.features == DEBLUR_FIRST)
      finish_first(a, hidden, x<float>(), mask, y<float>(), row, scratch);
    else if (a.features == DEBLUR_LAST)
      finish_last(a, hidden, x<float>(), mask, y<float>(), row, scratch);
    else
      finish_last(a, hidden, x<Bf16>(), mask, y<Bf16>(), row, scratch);
  }

 private:
  template <class T> const T* x() const { return static_cast<const T*>(a.x) + begin; }
  template <class T> T* y() const { return static_cast<T*>(a.y) + begin; }
};

// The rows from `begin` on whose neighbours fit into the memory of a band; at least one.
int64_t band_end(const Neighbours& neighbours, int64_t begin, int64_t h, int64_t most) {
  int64_t end = begin + 1;
  while (end < h && neighbours.first(end + 2) - neighbours.first(begin - 1) <= most) ++end;
  return end;
}

}  // namespace

int32_t pruned_conv(const PrunedArguments& a, Team& team) {
  const bool pairs = a.features == DEBLUR_LAST_BF16 && chosen_isa() == Isa::avx512_bf16;
  const Weights weights(a, pairs);
  Neighbours neighbours(a.h, a.w);
  if (!weights || !neighbours) return DEBLUR_NO_MEMORY;
  const int64_t pixels = a.h * a.w, wide = 2 * weights.half;
  const int64_t held = kHeld * team.size() / wide, three = 3 * a.w;
  const int64_t most = held > three ? held : three;  // pixels of a band with its neighbours
  const int64_t tasks = 4 * team.size();
  const int64_t scratch = kTile * a.c > kRun * weights.half ? kTile * a.c : kRun * weights.half;
  Floats hidden((at_most(most, pixels) + 1) * wide), memory(tasks * scratch);
  if (!hidden || !memory) return DEBLUR_NO_MEMORY;
  memset(hidden.data(), 0, sizeof(float) * static_cast<size_t>(wide));

  for (int64_t image = 0; image < a.n; ++image) {
    const Image own = {a, image * a.c * pixels};
    const float* mask = a.mask + image * pixels;
    neighbours.find(mask, team);
    for (int64_t begin = 0, end; begin < a.h; begin = end) {
      end = band_end(neighbours, begin, a.h, most);
      const int64_t first = neighbours.first(begin - 1);
      const int64_t count = neighbours.first(end + 1) - first;
      const int64_t tiles = (count + kTile - 1) / kTile;
      parallel_for(team, at_most(tasks, tiles), [&](int64_t task) {
        const int64_t all = at_most(tasks, tiles);
        float* rows = memory.data() + task * scratch;
        for (int64_t tile = tiles * task / all; tile < tiles * (task + 1) / all; ++tile) {
          const int64_t start = tile * kTile, some = at_most(count - start, kTile);
          own.gather(neighbours.list() + first + start, some, pairs, rows);
          weights.multiply(rows, some, hidden.data() + (start + 1) * wide);
        }
      });
      const int64_t parts = at_most(tasks, end - begin);
      parallel_for(team, parts, [&](int64_t task) {
        const int64_t last = begin + (end - begin) * (task + 1) / parts;
        for (int64_t row = begin + (end - begin) * task / parts; row < last; ++row)
          own.finish({weights, neighbours, hidden.data(), first, a.w}, mask, row,
                     memory.data() + task * scratch);
      });
    }
  }
  return DEBLUR_OK;
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
