// MotionDeformConv of features with the channels last: a pixel is a row already, so that nothing is
// copied. All channels of a pixel go one after the other, which reads whole rows; a strip goes down
// the image, so that the rows around it stay in the cache.
#include <string.h>

#include "../common/buffer.h"
#include "../common/features.h"
#include "arguments.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kSlice = 32;  // pixels of a strip
constexpr int64_t kAhead = 4;   // image rows
constexpr int kVectors = 4;     // sums in registers
constexpr int64_t kLine = 16;   // floats of a cache line, which tasks do not share

int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// Samples of a slice of an image row, one array a tap. Where all four corners lie inside the image,
// `base` is the number of the first, else -1 minus its place in the canvas.
struct Slice {
  int32_t base[kMotionTaps][kSlice];
  float factor[kMotionTaps][4][kSlice];
  bool inside[kSlice];  // all samples of the pixel

  void find(const float* offset, const Sample* plan, Canvas canvas, int64_t begin, int64_t count) {
    const int64_t pixels = static_cast<int64_t>(canvas.height) * canvas.width;
    const int64_t y = begin / canvas.width, x = begin % canvas.width;
    for (int64_t i = 0; i < count; ++i) inside[i] = true;
    for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
      if (plan != nullptr) {
        for (int64_t i = 0; i < count; ++i)
          set_sample(tap, i, canvas, plan[(begin + i) * kMotionTaps + tap]);
        continue;
      }
      const float *down = offset + 2 * tap * pixels + begin, *right = down + pixels;
      for (int64_t i = 0; i < count; ++i)
        set_sample(tap, i, canvas, sample_at(canvas, y + tap / 3 - 1, x + i + tap % 3 - 1, down[i],
                                             right[i], 1.0f));
    }
  }

 private:
  DEBLUR_INLINE_METHOD void set_sample(int64_t tap, int64_t i, Canvas canvas,
                                       const Sample& sample) {
    const int32_t pitch = canvas.width + 2;
    // Exact: the quotient of whole numbers, half a step away from the next.
    const int32_t y = static_cast<int32_t>((sample.base + 0.5) * (1.0 / pitch)) - 1;
    const int32_t x = sample.base - (y + 1) * pitch - 1;
    const bool all = (y >= 0) & (y + 1 < canvas.height) & (x >= 0) & (x + 1 < canvas.width);
    base[tap][i] = all ? y * canvas.width + x : -1 - sample.base;
    inside[i] = inside[i] & all;
    for (int corner = 0; corner < 4; ++corner) factor[tap][corner][i] = sample.factor[corner];
  }
};

// What the pixels of an image have in common. weights [taps][c]; nothing [c] zeros. Pairs have
// weights of their own.
template <class T>
struct Image {
  const T* x;
  const float *weights, *bias;
  const T* nothing;
  T* y;
  int64_t c, h, w;
  bool gate;

  template <bool Inside>
  DEBLUR_INLINE_METHOD void corners(int32_t base, const T** at) const {
    if (Inside || base >= 0) {
      at[0] = x + base * c;
      at[1] = at[0] + c;
      at[2] = at[0] + w * c;
      at[3] = at[2] + c;
      return;
    }
    const int64_t place = -1 - static_cast<int64_t>(base), pitch = w + 2;
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t row = place / pitch - 1 + i / 2, column = place % pitch - 1 + i % 2;
      const bool inside = row >= 0 && row < h && column >= 0 && column < w;
      at[i] = inside ? x + (row * w + column) * c : nothing;
    }
  }
  // The corners of all samples of pixel i.
  DEBLUR_INLINE_METHOD void corners(const Slice& slice, int64_t i, const T* (*at)[4]) const {
    for (int64_t tap = 0; tap < kMotionTaps; ++tap)
      if (slice.inside[i]) corners<true>(slice.base[tap][i], at[tap]);
      else corners<false>(slice.base[tap][i], at[tap]);
  }

  // Sums of `Count` vectors of channels from `first` on.
  template <int Count>
  DEBLUR_INLINE_METHOD void convolve(const T* const (*at)[4], const Slice& slice, int64_t i,
                                     int64_t first, float* sums) const {
    Vec sum[Count];
    for (int v = 0; v < Count; ++v) sum[v] = load(bias + first + v * kWidth);
    for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
      const float(*factor)[kSlice] = slice.factor[tap];
      const Vec f0 = set(factor[0][i]), f1 = set(factor[1][i]);
      const Vec f2 = set(factor[2][i]), f3 = set(factor[3][i]);
      for (int v = 0; v < Count; ++v) {
        const int64_t here = first + v * kWidth;
        Vec value = f0 * load(at[tap][0] + here);
        value = fma(f1, load(at[tap][1] + here), value);
        value = fma(f2, load(at[tap][2] + here), value);
        value = fma(f3, load(at[tap][3] + here), value);
        sum[v] = fma(load(weights + tap * c + here), value, sum[v]);
      }
    }
    for (int v = 0; v < Count; ++v) store(sums + first + v * kWidth, sum[v]);
  }

  float convolve_one(const T* const (*at)[4], const Slice& slice, int64_t i,
                     int64_t channel) const {
    float sum = bias[channel];
    for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
      float value = 0.0f;
      for (int corner = 0; corner < 4; ++corner)
        value += slice.factor[tap][corner][i] * to_float(at[tap][corner][channel]);
      sum += weights[tap * c + channel] * value;
    }
    return sum;
  }

  // All channels of pixel i of a slice; sums [c] is scratch.
  void convolve_pixel(const Slice& slice, int64_t i, float* sums, T* out) const {
    const T* at[kMotionTaps][4];
    corners(slice, i, at);
    int64_t first = 0;
    for (; first + kVectors * kWidth <= c; first += kVectors * kWidth)
      convolve<kVectors>(at, slice, i, first, sums);
    for (; first + kWidth <= c; first += kWidth) convolve<1>(at, slice, i, first, sums);
    for (; first < c; ++first) sums[first] = convolve_one(at, slice, i, first);
    if (gate) multiply(sums, sums + c / 2, c / 2, out);
    else copy(sums, c, out);
  }
};

#if defined(DEBLUR_PAIRS)

// The same for bfloat16 by products of pairs: of two corners that lie side by side, by their
// factors, which are rounded. Interleaving two rows of a block of channels leaves them in two
// vectors in another order, which its weights have as well.
class Pairs {
 public:
  Pairs(const float* weight, const float* bias, int64_t c, bool gate)
      : parts_(gate ? 2 : 1),
        outputs_(c / parts_),
        memory_((outputs_ + kBlock - 1) / kBlock * kBlock * parts_ * (kMotionTaps + 1)) {
    float* to = memory_.data();
    for (int64_t first = 0; to != nullptr && first < outputs_; first += kBlock)
      for (int64_t tap = -1; tap < kMotionTaps; ++tap)
        for (int64_t part = 0; part < parts_; ++part)
          for (int64_t place = 0; place < kBlock; ++place, ++to) {
            const int64_t output = first + in_block(place), channel = part * outputs_ + output;
            if (output >= outputs_) *to = 0.0f;
            else *to = tap < 0 ? bias[channel] : weight[channel * kMotionTaps + tap];
          }
  }
  explicit operator bool() const { return static_cast<bool>(memory_); }

  // The pixels of a slice, a few at a time and block by block of their channels: the weights of a
  // block and the rows around these pixels stay in the nearest cache. The rows from `ahead` on
  // are needed soon.
  void convolve_slice(const Image<Bf16>& image, const Slice& slice, int64_t count,
                      const Bf16* ahead, Bf16* out) const {
    const Factors factors(slice);
    Sources sources[kTile];
    for (int64_t start = 0; start < count; start += kTile) {
      const int64_t some = at_most(count - start, kTile);
      for (int64_t i = 0; i < some; ++i) {
        DEBLUR_PREFETCH(ahead + (start + i) * image.c, image.c * 2);
        sources[i].find(image, slice, start + i);
      }
      if (parts_ == 2) convolve_tile<2>(image, sources, factors, start, some, out);
      else convolve_tile<1>(image, sources, factors, start, some, out);
    }
  }

 private:
  static constexpr int64_t kBlock = 2 * kWidth;  // channels
  static constexpr int64_t kTile = 8;            // pixels

  // The corners of the samples of a pixel; inside the image, the first one tells the others.
  struct Sources {
    const Bf16* at[kMotionTaps][4];
    bool inside;

    void find(const Image<Bf16>& image, const Slice& slice, int64_t i) {
      inside = slice.inside[i];
      if (!inside) return image.corners(slice, i, at);
      for (int64_t tap = 0; tap < kMotionTaps; ++tap)
        at[tap][0] = image.x + slice.base[tap][i] * image.c;
    }
  };

  // Pairs of the factors of a slice: of its upper and of its lower corners.
  struct Factors {
    float row[kMotionTaps][2][kSlice];

    explicit Factors(const Slice& slice) {
      for (int64_t tap = 0; tap < kMotionTaps; ++tap)
        for (int64_t corner = 0; corner < 4; corner += 2)
          for (int64_t i = 0; i < kSlice; i += kWidth) {
            const __m512i left = rounded(load(slice.factor[tap][corner] + i));
            const __m512i right = rounded(load(slice.factor[tap][corner + 1] + i));
            _mm512_storeu_si512(row[tap][corner / 2] + i,
                                _mm512_or_si512(left, _mm512_slli_epi32(right, 16)));
          }
    }
  };

  static int64_t in_block(int64_t place) {
    return place % kWidth / 4 * 8 + place / kWidth * 4 + place % 4;
  }

  // Pixels [start, start + count) of a slice.
  template <int Parts>
  void convolve_tile(const Image<Bf16>& image, const Sources* sources, const Factors& factors,
                     int64_t start, int64_t count, Bf16* out) const {
    const float* weights = memory_.data();
    for (int64_t first = 0; first < outputs_; first += kBlock) {
      const int64_t left = outputs_ - first;
      const __mmask32 rest = left < kBlock ? (__mmask32{1} << left) - 1 : ~__mmask32{0};
      for (int64_t i = 0; i < count; ++i) {
        const float* factor = factors.row[0][0] + start + i;
        Bf16* to = out + (start + i) * outputs_ + first;
        if (left >= kBlock && sources[i].inside)
          convolve<Parts, true, true>(image, sources[i].at, factor, weights, first, rest, to);
        else if (sources[i].inside)
          convolve<Parts, true, false>(image, sources[i].at, factor, weights, first, rest, to);
        else
          convolve<Parts, false, false>(image, sources[i].at, factor, weights, first, rest, to);
      }
      weights += (kMotionTaps + 1) * Parts * kBlock;
    }
  }

  // Two rows of a block, of which not `Whole` has `rest` alone, interleaved.
  struct Both { Vec low, high; };
  template <bool Whole>
  DEBLUR_INLINE Both interleave(const Bf16* a, const Bf16* b, __mmask32 rest) {
    __m512i x = Whole ? _mm512_loadu_si512(a) : _mm512_maskz_loadu_epi16(rest, a);
    __m512i y = Whole ? _mm512_loadu_si512(b) : _mm512_maskz_loadu_epi16(rest, b);
    __asm__("" : "+v"(x), "+v"(y));  // each is loaded once
    return {{_mm512_castsi512_ps(_mm512_unpacklo_epi16(x, y))},
            {_mm512_castsi512_ps(_mm512_unpackhi_epi16(x, y))}};
  }

  // A block of a pixel. factor as in Factors; weights [bias, then taps][Parts][kBlock].
  template <int Parts, bool Inside, bool Whole>
  DEBLUR_INLINE_METHOD void convolve(const Image<Bf16>& image, const Bf16* const (*at)[4],
                                     const float* factor, const float* weights, int64_t first,
                                     __mmask32 rest, Bf16* out) const {
    const int64_t right = image.c, down = image.w * image.c;
    Both sum[Parts];
    for (int part = 0; part < Parts; ++part)
      sum[part] = {load(weights + part * kBlock), load(weights + part * kBlock + kWidth)};
    for (int64_t tap = 0; tap < kMotionTaps; ++tap, factor += 2 * kSlice) {
      const Vec upper = set(factor[0]), lower = set(factor[kSlice]), none = set(0.0f);
      for (int part = 0; part < Parts; ++part) {
        const int64_t here = part * outputs_ + first;
        const Bf16* const corner = at[tap][0] + here;
        const Both top =
            interleave<Whole>(corner, Inside ? corner + right : at[tap][1] + here, rest);
        const Both bottom =
            interleave<Whole>(Inside ? corner + down : at[tap][2] + here,
                              Inside ? corner + down + right : at[tap][3] + here, rest);
        const Vec low = fma_pairs(bottom.low, lower, fma_pairs(top.low, upper, none));
        const Vec high = fma_pairs(bottom.high, lower, fma_pairs(top.high, upper, none));
        const float* own = weights + ((tap + 1) * Parts + part) * kBlock;
        sum[part].low = fma(load(own), low, sum[part].low);
        sum[part].high = fma(load(own + kWidth), high, sum[part].high);
      }
    }
    Both y = sum[0];
    if (Parts == 2) y = {y.low * sum[Parts - 1].low, y.high * sum[Parts - 1].high};
    const __m512i all = _mm512_packus_epi32(rounded(y.low), rounded(y.high));
    if (Whole) _mm512_storeu_si512(out, all);
    else _mm512_mask_storeu_epi16(out, rest, all);
  }

  int64_t parts_, outputs_;
  Floats memory_;
};

#endif

// The strips of all images, in parts of some rows for the threads.
class Strips {
 public:
  Strips(const MotionArguments& a, const Team& team)
      : a_(a),
        strips_((a.w + kSlice - 1) / kSlice),
        bands_(at_most((4 * team.size() + strips_ - 1) / strips_, a.h)) {}

  int64_t tasks() const { return a_.n * strips_ * bands_; }

  // body(image, slice, begin, count, task) for the pixels [begin, begin + count) of every slice.
  template <class T, class Body>
  void run(Team& team, const Image<T>& first, const Body& body) const {
    const Canvas canvas = {static_cast<int32_t>(a_.h), static_cast<int32_t>(a_.w)};
    const int64_t pixels = a_.h * a_.w, outputs = a_.gate ? a_.c / 2 : a_.c;
    parallel_for(team, tasks(), [&](int64_t task) {
      const int64_t number = task / (strips_ * bands_), place = task % (strips_ * bands_);
      const int64_t left = place / bands_ * kSlice, count = at_most(a_.w - left, kSlice);
      const int64_t band = place % bands_;
      Image<T> image = first;
      image.x += number * pixels * a_.c;
      image.y += number * pixels * outputs;
      const float* offset = a_.offset ? a_.offset + number * 2 * kMotionTaps * pixels : nullptr;
      const Sample* plan = a_.plan ? a_.plan + number * pixels * kMotionTaps : nullptr;
      Slice slice{};
      for (int64_t y = a_.h * band / bands_; y < a_.h * (band + 1) / bands_; ++y) {
        slice.find(offset, plan, canvas, y * a_.w + left, count);
        body(image, slice, y * a_.w + left, count, task);
      }
    });
  }

 private:
  const MotionArguments& a_;
  int64_t strips_, bands_;
};

template <class T>
int32_t convolve_all(const MotionArguments& a, const T* nothing, Team& team) {
  const Strips strips(a, team);
  const int64_t outputs = a.gate ? a.c / 2 : a.c, sums = round_up(a.c, kLine);
  Floats weights(kMotionTaps * a.c), scratch(strips.tasks() * sums);
  if (!weights || !scratch) return DEBLUR_NO_MEMORY;
  for (int64_t channel = 0; channel < a.c; ++channel)
    for (int64_t tap = 0; tap < kMotionTaps; ++tap)
      weights.data()[tap * a.c + channel] = a.weight[channel * kMotionTaps + tap];
  const Image<T> first = {static_cast<const T*>(a.x), weights.data(), a.bias, nothing,
                          static_cast<T*>(a.y), a.c, a.h, a.w, a.gate};
  strips.run(team, first, [&](const Image<T>& image, const Slice& slice, int64_t begin,
                              int64_t count, int64_t task) {
    for (int64_t i = 0; i < count; ++i)
      image.convolve_pixel(slice, i, scratch.data() + task * sums,
                           image.y + (begin + i) * outputs);
  });
  return DEBLUR_OK;
}

#if defined(DEBLUR_PAIRS)
int32_t convolve_pairs(const MotionArguments& a, const Bf16* nothing, Team& team) {
  const Pairs pairs(a.weight, a.bias, a.c, a.gate);
  if (!pairs) return DEBLUR_NO_MEMORY;
  const int64_t outputs = a.gate ? a.c / 2 : a.c;
  const Image<Bf16> first = {static_cast<const Bf16*>(a.x), nullptr, nullptr, nothing,
                             static_cast<Bf16*>(a.y), a.c, a.h, a.w, a.gate};
  Strips(a, team).run(team, first, [&](const Image<Bf16>& image, const Slice& slice,
                                       int64_t begin, int64_t count, int64_t) {
    const int64_t ahead = at_most(begin + kAhead * a.w, a.h * a.w - count);
    pairs.convolve_slice(image, slice, count, image.x + ahead * a.c, image.y + begin * outputs);
  });
  return DEBLUR_OK;
}
#endif

}  // namespace

int32_t motion_deform_conv_last(const MotionArguments& a, Team& team) {
  const Floats zeros(a.c);
  if (!zeros) return DEBLUR_NO_MEMORY;
  memset(zeros.data(), 0, sizeof(float) * static_cast<size_t>(a.c));
  const Bf16* low = reinterpret_cast<const Bf16*>(zeros.data());
  if (a.features != DEBLUR_LAST_BF16) return convolve_all<float>(a, zeros.data(), team);
#if defined(DEBLUR_PAIRS)
  if (chosen_isa() == Isa::avx512_bf16) return convolve_pairs(a, low, team);
#endif
  return convolve_all<Bf16>(a, low, team);
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
