// MotionDeformConv for NHWC in bfloat16, by the instruction VDPBF16PS, which multiplies pairs of
// bfloat16 and adds both products to a float32.
#pragma once

#include "../common/buffer.h"
#include "slice.h"

#if defined(DEBLUR_PAIRS)

namespace deblur {
namespace DEBLUR_TARGET {

// A pair is the upper two or the lower two corners of a sample, multiplied by their interpolation
// factors, which are rounded to bfloat16. The rows of both corners are interleaved for that,
// channel by channel, which leaves the channels of a block in two vectors in another order; the
// weights and the bias are stored in that order too.
class Pairs {
 public:
  Pairs(const float* weight, const float* bias, int64_t c, bool gate)
      : parts_(gate ? 2 : 1),
        outputs_(c / parts_),
        memory_((outputs_ + kBlock - 1) / kBlock * kBlock * parts_ * (kMotionTaps + 1)) {
    // Block by block of channels: the bias (as tap -1), then every tap, each for all parts, in the
    // interleaved order.
    float* to = memory_.data();
    for (int64_t first = 0; to != nullptr && first < outputs_; first += kBlock)
      for (int64_t tap = -1; tap < kMotionTaps; ++tap)
        for (int64_t part = 0; part < parts_; ++part)
          for (int64_t position = 0; position < kBlock; ++position, ++to) {
            const int64_t output = first + in_block(position), channel = part * outputs_ + output;
            if (output >= outputs_) *to = 0.0f;
            else *to = tap < 0 ? bias[channel] : weight[channel * kMotionTaps + tap];
          }
  }
  explicit operator bool() const { return static_cast<bool>(memory_); }

  // Computes the pixels of a slice, a tile at a time and block by block of their channels: the
  // weights of a block and the rows around the tile stay in the L1 cache. The rows of x from
  // `ahead` on are needed soon and are prefetched.
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

  // The corners of the samples of a pixel; where all are inside the image, only the first is set,
  // from which the others follow.
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

  // The factors of a slice as pairs of bfloat16: [tap][upper or lower corners][pixel].
  struct Factors {
    float row[kMotionTaps][2][kSlice];

    // The left corner in the lower half of a lane, the right corner in the upper half.
    explicit Factors(const Slice& slice) {
      for (int64_t tap = 0; tap < kMotionTaps; ++tap)
        for (int64_t corner = 0; corner < 4; corner += 2)
          for (int64_t i = 0; i < kSlice; i += kWidth) {
            const __m512i left = round_to_bf16(load(slice.factor[tap][corner] + i));
            const __m512i right = round_to_bf16(load(slice.factor[tap][corner + 1] + i));
            _mm512_storeu_si512(row[tap][corner / 2] + i,
                                _mm512_or_si512(left, _mm512_slli_epi32(right, 16)));
          }
    }
  };

  // The channel of a block that the interleaved order has at a position.
  static int64_t in_block(int64_t position) {
    return position % kWidth / 4 * 8 + position / kWidth * 4 + position % 4;
  }

  // Pixels [start, start + count) of a slice. With the gate, `Parts` is 2: both halves of the
  // channels are computed together and multiplied.
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
        else convolve<Parts, false, false>(image, sources[i].at, factor, weights, first, rest, to);
      }
      weights += (kMotionTaps + 1) * Parts * kBlock;
    }
  }

  // Two rows of a block of channels, interleaved. Only a `Whole` block is loaded without the mask.
  struct Both {
    Vec low, high;
  };
  template <bool Whole>
  DEBLUR_INLINE Both interleave(const Bf16* a, const Bf16* b, __mmask32 rest) {
    __m512i x = Whole ? _mm512_loadu_si512(a) : _mm512_maskz_loadu_epi16(rest, a);
    __m512i y = Whole ? _mm512_loadu_si512(b) : _mm512_maskz_loadu_epi16(rest, b);
    // Keeps the compiler from loading each of them twice, as operands of both instructions below.
    __asm__("" : "+v"(x), "+v"(y));
    return {{_mm512_castsi512_ps(_mm512_unpacklo_epi16(x, y))},
            {_mm512_castsi512_ps(_mm512_unpackhi_epi16(x, y))}};
  }

  // One block of channels of one pixel. factor as in Factors; weights [bias, then taps][Parts]
  // [kBlock]. `Inside`: all samples are inside the image.
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
    const __m512i all = _mm512_packus_epi32(round_to_bf16(y.low), round_to_bf16(y.high));
    if (Whole) _mm512_storeu_si512(out, all);
    else _mm512_mask_storeu_epi16(out, rest, all);
  }

  int64_t parts_, outputs_;
  FloatBuffer memory_;
};

}  // namespace DEBLUR_TARGET
}  // namespace deblur

#endif
