// The CPU kernel of PrunedConv (M2AENet, arXiv:2507.07708, Sec. 3.2 and Eq. 5; the formula is in
// kernel.cuh): the pixels of the dilated mask are gathered as rows and multiplied by the 1x1
// weights; then, at the masked pixels, follow the depth-wise 3x3 convolution over the rows of their
// neighbours and the gate.
//
// Bands of image rows bound the memory of the hidden rows. Row 0 of a band is zero: it stands for
// everything outside the image (inside, the neighbours of a masked pixel are all in the list).
#include <string.h>

#include "../common/bf16.h"
#include "../common/buffer.h"
#include "../common/gemm.h"
#include "../common/transpose.h"
#include "arguments.h"
#include "dilated_mask.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kTile = 4 * kRows;  // pixels of a matrix gemm by one thread
constexpr int64_t kRun = 32;  // masked pixels whose results are transposed to NCHW at a time
constexpr int64_t kMostHidden = int64_t{1}
                                << 20;  // floats of a band a thread, unless one row has more
constexpr int64_t kTaps = 9;

// The weights in the order in which the kernels read them; each half of the 2c hidden channels is
// filled up to whole vectors, of `half` channels.
class Weights {
 public:
  Weights(const PrunedArguments& a, bool in_pairs)
      : half(round_up(a.c, kWidth)),
        panels(2 * half / kPanel),
        depth(in_pairs ? (a.c + 1) / 2 : a.c),
        pairs(in_pairs),
        memory_(2 * half * (depth + 2 + kTaps)) {
    // The matrix of the 1x1 convolution in panels, then its bias, the taps of the depth-wise
    // convolution, and its bias; zero in lanes without a channel.
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

  // The 1x1 convolution: rows [count][depth] -> out [count][2 * half].
  void multiply(const float* rows, int64_t count, float* out) const {
#if defined(DEBLUR_PAIRS)
    if (pairs)
      return gemm<Bf16PairFma>(rows, depth, count, depth, matrix, bias1, panels, out, 2 * half);
#endif
    gemm(rows, depth, count, depth, matrix, bias1, panels, out, 2 * half);
  }

  int64_t half, panels;
  int64_t depth;  // floats of a gathered row: channels, or pairs of them in bfloat16
  bool pairs;
  float *matrix = nullptr, *bias1 = nullptr, *taps = nullptr, *bias2 = nullptr;

 private:
  FloatBuffer memory_;
};

// Length of the run of neighbouring pixels that `list` begins with.
int64_t run_length(const int32_t* list, int64_t count) {
  int64_t length = 1;
  while (length < count && list[length] == list[0] + length) ++length;
  return length;
}

// Writes the listed pixels of x [c, pixels] (NCHW) or [pixels, c] (NHWC) to rows [count][c].
// Neighbouring pixels of NCHW are transposed together.
void gather_nchw(const float* x, int64_t pixels, int64_t c, const int32_t* list, int64_t count,
                 float* rows) {
  for (int64_t i = 0, length; i < count; i += length) {
    length = run_length(list + i, count - i);
    transpose(x + list[i], pixels, c, length, rows + i * c, c);
  }
}
template <class T>
void gather_nhwc(const T* x, int64_t c, const int32_t* list, int64_t count, float* rows) {
  for (int64_t i = 0; i < count; ++i) copy(x + list[i] * c, c, rows + i * c);
}

// The same, as rows of pairs of bfloat16; with an odd c the last pair ends with a zero.
void gather_pairs(const Bf16* x, int64_t c, const int32_t* list, int64_t count, float* rows) {
  const int64_t depth = (c + 1) / 2;
  for (int64_t i = 0; i < count; ++i) {
    rows[i * depth + depth - 1] = 0.0f;
    memcpy(rows + i * depth, x + list[i] * c, sizeof(Bf16) * static_cast<size_t>(c));
  }
}

// The depth-wise convolution and the gate at one pixel, out [half]; `near` has the nine hidden rows
// of its neighbourhood.
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

// The hidden rows of a band: row 0 is zero, row 1 belongs to the pixel at position `first` of the
// list.
struct Hidden {
  const Weights& weights;
  const DilatedMask& dilated;
  const float* rows;
  int64_t first, w;

  // The result [half] of the masked pixel (y, x).
  void convolve_at(int64_t y, int64_t x, float* out) const {
    const float* near[kTaps];
    const int32_t* numbers = dilated.around(y, x);
    for (int64_t tap = 0; tap < kTaps; ++tap) {
      const int64_t number = numbers[tap / 3 * (w + 2) + tap % 3];
      near[tap] = rows + (number == 0 ? 0 : number - first) * 2 * weights.half;
    }
    convolve(weights, near, out);
  }
};

// Writes one row of y: x x everywhere, then the masked pixels. `scratch` holds kRun results, which
// are transposed to NCHW together.
void finish_nchw(const PrunedArguments& a, const Hidden& hidden, const float* x, const float* mask,
                 float* y, int64_t row, float* scratch) {
  const int64_t pixels = a.h * a.w, half = hidden.weights.half;
  for (int64_t c = 0, at = row * a.w; c < a.c; ++c, at += pixels) square(x + at, a.w, y + at);
  const float* masked = mask + row * a.w;
  for (int64_t begin = 0; begin < a.w;) {
    int64_t end = begin;
    for (; end < a.w && end < begin + kRun && masked[end] > kMaskThreshold; ++end)
      hidden.convolve_at(row, end, scratch + (end - begin) * half);
    transpose(scratch, half, end - begin, a.c, y + row * a.w + begin, pixels);
    begin = end > begin ? end : begin + 1;
  }
}
template <class T>
void finish_nhwc(const PrunedArguments& a, const Hidden& hidden, const T* x, const float* mask,
                 T* y, int64_t row, float* scratch) {
  square(x + row * a.w * a.c, a.w * a.c, y + row * a.w * a.c);
  for (int64_t pixel = row * a.w; pixel < (row + 1) * a.w; ++pixel) {
    if (!(mask[pixel] > kMaskThreshold)) continue;
    hidden.convolve_at(row, pixel - row * a.w, scratch);
    copy(scratch, a.c, y + pixel * a.c);
  }
}

// One image of x and y, in the layout and type of the call.
struct Image {
  const PrunedArguments& a;
  int64_t begin;  // position of its first value

  void gather(const int32_t* list, int64_t count, bool pairs, float* rows) const {
    if (pairs) gather_pairs(x<Bf16>(), a.c, list, count, rows);
    else if (a.layout == DEBLUR_NCHW) gather_nchw(x<float>(), a.h * a.w, a.c, list, count, rows);
    else if (a.layout == DEBLUR_NHWC) gather_nhwc(x<float>(), a.c, list, count, rows);
    else gather_nhwc(x<Bf16>(), a.c, list, count, rows);
  }
  void finish(const Hidden& hidden, const float* mask, int64_t row, float* scratch) const {
    if (a.layout == DEBLUR_NCHW) finish_nchw(a, hidden, x<float>(), mask, y<float>(), row, scratch);
    else if (a.layout == DEBLUR_NHWC)
      finish_nhwc(a, hidden, x<float>(), mask, y<float>(), row, scratch);
    else finish_nhwc(a, hidden, x<Bf16>(), mask, y<Bf16>(), row, scratch);
  }

 private:
  template <class T>
  const T* x() const {
    return static_cast<const T*>(a.x) + begin;
  }
  template <class T>
  T* y() const {
    return static_cast<T*>(a.y) + begin;
  }
};

// The end of the band of rows that begins at `begin`: as many rows as have at most `most` listed
// pixels with their neighbours above and below, but at least one.
int64_t band_end(const DilatedMask& dilated, int64_t begin, int64_t h, int64_t most) {
  int64_t end = begin + 1;
  while (end < h && dilated.first(end + 2) - dilated.first(begin - 1) <= most) ++end;
  return end;
}

}  // namespace

int32_t pruned_conv(const PrunedArguments& a, ThreadPool& pool) {
  // bfloat16 is multiplied in pairs where the processor can; the hidden rows are float32 in any
  // case.
  const bool pairs = a.layout == DEBLUR_NHWC_BF16 && chosen_isa() == Isa::avx512_bf16;
  const Weights weights(a, pairs);
  DilatedMask dilated(a.h, a.w);
  if (!weights || !dilated) return DEBLUR_NO_MEMORY;
  // The memory of a band: `most` hidden rows, at least those of three image rows, which one row of
  // results needs; and scratch for every task.
  const int64_t pixels = a.h * a.w, row_stride = 2 * weights.half;
  const int64_t held = kMostHidden * pool.size() / row_stride, three = 3 * a.w;
  const int64_t most = held > three ? held : three;  // pixels of a band with its neighbours
  const int64_t tasks = 4 * pool.size();
  const int64_t scratch = kTile * a.c > kRun * weights.half ? kTile * a.c : kRun * weights.half;
  FloatBuffer hidden((at_most(most, pixels) + 1) * row_stride), memory(tasks * scratch);
  if (!hidden || !memory) return DEBLUR_NO_MEMORY;
  memset(hidden.data(), 0, sizeof(float) * static_cast<size_t>(row_stride));

  for (int64_t image = 0; image < a.n; ++image) {
    const Image own = {a, image * a.c * pixels};
    const float* mask = a.mask + image * pixels;
    dilated.find(mask, pool);
    for (int64_t begin = 0, end; begin < a.h; begin = end) {
      end = band_end(dilated, begin, a.h, most);
      const int64_t first = dilated.first(begin - 1);
      const int64_t count = dilated.first(end + 1) - first;
      const int64_t tiles = (count + kTile - 1) / kTile;
      // Tiles of listed pixels: gather their rows and multiply them by the 1x1 weights.
      parallel_for(pool, at_most(tasks, tiles), [&](int64_t task) {
        const int64_t all = at_most(tasks, tiles);
        float* rows = memory.data() + task * scratch;
        for (int64_t tile = tiles * task / all; tile < tiles * (task + 1) / all; ++tile) {
          const int64_t start = tile * kTile, some = at_most(count - start, kTile);
          own.gather(dilated.list() + first + start, some, pairs, rows);
          weights.multiply(rows, some, hidden.data() + (start + 1) * row_stride);
        }
      });
      const int64_t parts = at_most(tasks, end - begin);
      // Rows of the band: the depth-wise convolution at masked pixels, x x elsewhere.
      parallel_for(pool, parts, [&](int64_t task) {
        const int64_t last = begin + (end - begin) * (task + 1) / parts;
        for (int64_t row = begin + (end - begin) * task / parts; row < last; ++row)
          own.finish({weights, dilated, hidden.data(), first, a.w}, mask, row,
                     memory.data() + task * scratch);
      });
    }
  }
  return DEBLUR_OK;
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
