// DeformConv2d and DeformConv2dAt: samples of a few pixels as rows, times the weights as a matrix.
#include "../common/buffer.h"
#include "../common/gemm.h"
#include "../common/padded.h"
#include "arguments.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kTile = 4 * kRows;  // pixels whose samples are held at a time, by one thread

int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

// The sizes of one call; channels are padded to whole vectors, outputs to whole panels.
struct Sizes {
  explicit Sizes(const DeformArguments& a)
      : taps(int64_t{a.kernel} * a.kernel),
        channels(round_up(a.c, kWidth)),
        depth(taps * channels),
        panels((a.outputs + kPanel - 1) / kPanel),
        canvas{static_cast<int32_t>(a.h), static_cast<int32_t>(a.w)} {}
  int64_t taps, channels, depth, panels;
  Canvas canvas;
};

// weight [outputs, c, taps] -> [panels][taps][channels][kPanel], and the bias behind it.
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

// All channels of one sample.
DEBLUR_INLINE void sample_channels(const float* canvas, int64_t line, int64_t channels,
                                   const Sample& sample, float* out) {
  const float* corner = canvas + sample.base * channels;
  const Vec f0 = set(sample.factor[0]), f1 = set(sample.factor[1]);
  const Vec f2 = set(sample.factor[2]), f3 = set(sample.factor[3]);
  for (int64_t c = 0; c < channels; c += kWidth) {
    Vec value = f0 * load(corner + c);
    value = fma(f1, load(corner + channels + c), value);
    value = fma(f2, load(corner + line + c), value);
    store(out + c, fma(f3, load(corner + line + channels + c), value));
  }
}

// The samples of listed pixels [begin, begin + count) of one image, as rows [count][depth].
void sample_rows(const DeformArguments& a, const Sizes& s, const float* canvas, int64_t image,
                 int64_t begin, int64_t count, float* rows) {
  const int64_t line = (a.w + 2) * s.channels, all = a.pixels, edge = a.kernel / 2;
  const float* offset = a.offset + image * 2 * s.taps * all;
  const float* mask = a.mask + image * s.taps * all;
  for (int64_t p = begin; p < begin + count; ++p) {
    const int64_t pixel = a.index == nullptr ? p : a.index[image * all + p];
    // A pixel below the image (or before its first) samples zeros, however far it is.
    const int64_t far = int64_t{1} << 40, number = pixel < -far ? -far : pixel > far ? far : pixel;
    int64_t y = number / a.w, x = number % a.w;
    if (x < 0) { x += a.w; --y; }
    for (int64_t tap = 0; tap < s.taps; ++tap, rows += s.channels) {
      const Sample sample =
          sample_at(s.canvas, y + tap / a.kernel - edge, x + tap % a.kernel - edge,
                    offset[2 * tap * all + p], offset[(2 * tap + 1) * all + p], mask[tap * all + p]);
      sample_channels(canvas, line, s.channels, sample, rows);
    }
  }
}

}  // namespace

int32_t deform_conv2d(const DeformArguments& a, Team& team) {
  const Sizes s(a);
  const int64_t tiles = (a.pixels + kTile - 1) / kTile, tasks = at_most(tiles, 4 * team.size());
  const int64_t outputs = s.panels * kPanel, scratch = kTile * (s.depth + outputs);
  const int64_t bands = at_most(2 * team.size(), a.h);
  Floats canvas(canvas_pixels(s.canvas) * s.channels), memory(tasks * scratch);
  Floats weights(s.panels * s.depth * kPanel), bias(outputs);
  if (!canvas || !memory || !weights || !bias) return DEBLUR_NO_MEMORY;
  pack(a, s, weights.data(), bias.data());

  for (int64_t image = 0; image < a.n; ++image) {
    const float* x = a.x + image * a.c * a.h * a.w;
    float* y = a.y + image * a.outputs * a.pixels;
    parallel_for(team, bands, [&](int64_t band) {
      const int64_t begin = a.h * band / bands, end = a.h * (band + 1) / bands;
      clear_canvas(s.canvas, s.channels, a.c < s.channels, begin, end, canvas.data());
      fill_canvas(x, s.canvas, a.c, s.channels, begin, end, canvas.data());
    });
    parallel_for(team, tasks, [&](int64_t task) {
      float* rows = memory.data() + task * scratch;
      float* out = rows + kTile * s.depth;
      for (int64_t tile = tiles * task / tasks; tile < tiles * (task + 1) / tasks; ++tile) {
        const int64_t begin = tile * kTile, count = at_most(a.pixels - begin, kTile);
        sample_rows(a, s, canvas.data(), image, begin, count, rows);
        product(rows, s.depth, count, s.depth, weights.data(), bias.data(), s.panels, out, outputs);
        transpose(out, outputs, count, a.outputs, y + begin, a.pixels);
      }
    });
  }
  return DEBLUR_OK;
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
