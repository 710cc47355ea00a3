// The CPU kernel of DeformConv2d and DeformConv2dAt (Zhu et al. 2019, "Deformable ConvNets v2",
// arXiv:1811.11168, Eq. 1; the formula is in kernel.cuh): the modulated samples of a few pixels are
// written as rows [pixel][tap][channel], which are multiplied by the weights as a matrix.
#include "../common/buffer.h"
#include "../common/gemm.h"
#include "../common/padded.h"
#include "arguments.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kTile = 4 * kRows;  // pixels whose samples a thread holds at a time

// The sizes of one call: channels are filled up to whole vectors, outputs to whole panels; `depth`
// is the length of a row of samples.
struct Sizes {
  explicit Sizes(const DeformArguments& a)
      : taps(int64_t{a.kernel} * a.kernel),
        channels(round_up(a.c, kWidth)),
        depth(taps * channels),
        panels((a.outputs + kPanel - 1) / kPanel),
        image(image_size(a.h, a.w)) {}
  int64_t taps, channels, depth, panels;
  ImageSize image;
};

// weight [outputs, c, taps] -> weights [panels][taps][channels][kPanel], the order in which the
// product reads them; bias [panels * kPanel]. Both are zero where there is no output or channel.
void pack(const DeformArguments& a, const Sizes& s, float* weights, float* bias) {
  memset(weights, 0, sizeof(float) * static_cast<size_t>(s.panels * s.depth * kPanel));
  memset(bias, 0, sizeof(float) * static_cast<size_t>(s.panels * kPanel));
  for (int64_t o = 0; o < a.outputs; ++o) {
    bias[o] = a.bias[o];
    float* panel = weights + o / kPanel * s.depth * kPanel + o % kPanel;
    const float* from = a.weight + o * a.c * s.taps;
    for (int64_t c = 0; c < a.c; ++c)
      for (int64_t tap = 0; tap < s.taps; ++tap)
        panel[(tap * s.channels + c) * kPanel] = from[c * s.taps + tap];
  }
}

// Interpolates all channels of one sample; `line` is the length of a row of the padded image.
DEBLUR_INLINE void sample_channels(const float* padded, int64_t line, int64_t channels,
                                   const Sample& sample, float* out) {
  const float* corner = padded + sample.base * channels;
  const Vec f0 = set(sample.factor[0]), f1 = set(sample.factor[1]);
  const Vec f2 = set(sample.factor[2]), f3 = set(sample.factor[3]);
  for (int64_t c = 0; c < channels; c += kWidth) {
    Vec value = f0 * load(corner + c);
    value = fma(f1, load(corner + channels + c), value);
    value = fma(f2, load(corner + line + c), value);
    store(out + c, fma(f3, load(corner + line + channels + c), value));
  }
}

// Writes the samples of the pixels [begin, begin + count) of the list of one image to rows [count]
// [depth].
void sample_rows(const DeformArguments& a, const Sizes& s, const float* padded, int64_t image,
                 int64_t begin, int64_t count, float* rows) {
  const int64_t line = (a.w + 2) * s.channels, all = a.pixels, edge = a.kernel / 2;
  const float* offset = a.offset + image * 2 * s.taps * all;
  const float* mask = a.mask + image * s.taps * all;
  for (int64_t p = begin; p < begin + count; ++p) {
    const int64_t pixel = a.index == nullptr ? p : a.index[image * all + p];
    // A listed number outside the image is a pixel as far outside, which samples zeros; it is
    // limited to 2^40, so that nothing overflows. Division rounds towards zero, so negative ones
    // are corrected.
    const int64_t far = int64_t{1} << 40, number = pixel < -far ? -far : pixel > far ? far : pixel;
    int64_t y = number / a.w, x = number % a.w;
    if (x < 0) {
      x += a.w;
      --y;
    }
    for (int64_t tap = 0; tap < s.taps; ++tap, rows += s.channels) {
      const Sample sample = sample_at(s.image, y + tap / a.kernel - edge, x + tap % a.kernel - edge,
                                      offset[2 * tap * all + p], offset[(2 * tap + 1) * all + p],
                                      mask[tap * all + p]);
      sample_channels(padded, line, s.channels, sample, rows);
    }
  }
}

}  // namespace

int32_t deform_conv2d(const DeformArguments& a, ThreadPool& pool) {
  const Sizes s(a);
  const int64_t tiles = (a.pixels + kTile - 1) / kTile, tasks = at_most(tiles, 4 * pool.size());
  const int64_t outputs = s.panels * kPanel, scratch = kTile * (s.depth + outputs);
  const int64_t bands = at_most(2 * pool.size(), a.h);
  FloatBuffer padded(padded_pixels(s.image) * s.channels), memory(tasks * scratch);
  FloatBuffer weights(s.panels * s.depth * kPanel), bias(outputs);
  if (!padded || !memory || !weights || !bias) return DEBLUR_NO_MEMORY;
  pack(a, s, weights.data(), bias.data());

  for (int64_t image = 0; image < a.n; ++image) {
    const float* x = a.x + image * a.c * a.h * a.w;
    float* y = a.y + image * a.outputs * a.pixels;
    // Copy the image into the padded image, band by band, before the first pixel is sampled:
    // offsets may reach any row.
    parallel_for(pool, bands, [&](int64_t band) {
      const int64_t begin = a.h * band / bands, end = a.h * (band + 1) / bands;
      clear_border(s.image, s.channels, a.c < s.channels, begin, end, padded.data());
      fill_padded(x, s.image, a.c, s.channels, begin, end, padded.data());
    });
    // Tiles of pixels: sample, multiply, transpose the result to y [outputs, pixels].
    parallel_for(pool, tasks, [&](int64_t task) {
      float* rows = memory.data() + task * scratch;
      float* out = rows + kTile * s.depth;
      for (int64_t tile = tiles * task / tasks; tile < tiles * (task + 1) / tasks; ++tile) {
        const int64_t begin = tile * kTile, count = at_most(a.pixels - begin, kTile);
        sample_rows(a, s, padded.data(), image, begin, count, rows);
        gemm(rows, s.depth, count, s.depth, weights.data(), bias.data(), s.panels, out, outputs);
        transpose(out, outputs, count, a.outputs, y + begin, a.pixels);
      }
    });
  }
  return DEBLUR_OK;
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
