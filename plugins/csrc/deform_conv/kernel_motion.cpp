// MotionDeformConv: blocks of channels as rows, so that the samples of a pixel, found once, serve
// all channels, and a corner is a load of neighbouring floats.
#include "../common/buffer.h"
#include "arguments.h"
#include "canvas.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kBlock = 32;  // channels of a canvas: 128 B a pixel
constexpr int64_t kTile = 64;   // pixels of a result that are turned to channel-major at a time
constexpr int64_t kLargestPlan = int64_t{1} << 28;  // bytes; beyond, samples are found again

int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

// What the channels of a block have in common; weights [taps][kBlock], zero beyond `channels`.
struct Block {
  const float* x;
  float *y, *canvas;
  int64_t channels;
  float weights[kMotionTaps * kBlock], bias[kBlock];

  void start(const MotionArguments& a, int64_t image, int64_t first, float* memory) {
    x = a.x + (image * a.c + first) * a.h * a.w;
    y = a.y + (image * a.c + first) * a.h * a.w;
    canvas = memory;
    channels = at_most(a.c - first, kBlock);
    for (int64_t lane = 0; lane < kBlock; ++lane) {
      const bool used = lane < channels;
      bias[lane] = used ? a.bias[first + lane] : 0.0f;
      for (int64_t tap = 0; tap < kMotionTaps; ++tap)
        weights[tap * kBlock + lane] = used ? a.weight[(first + lane) * kMotionTaps + tap] : 0.0f;
    }
  }
};

// All taps of one pixel for `Count` vectors of channels; `line` is a row of the canvas.
template <int Count>
DEBLUR_INLINE void convolve(const Block& block, int64_t lane, const Sample* samples, int64_t line,
                            float* out) {
  Vec sum[Count];
  for (int v = 0; v < Count; ++v) sum[v] = load(block.bias + lane + v * kWidth);
  for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
    const float* corner = block.canvas + samples[tap].base * kBlock + lane;
    const float* weight = block.weights + tap * kBlock + lane;
    const float* factor = samples[tap].factor;
    Vec value[Count];
    const Vec f0 = set(factor[0]), f1 = set(factor[1]), f2 = set(factor[2]), f3 = set(factor[3]);
    for (int v = 0; v < Count; ++v) value[v] = f0 * load(corner + v * kWidth);
    for (int v = 0; v < Count; ++v) value[v] = fma(f1, load(corner + kBlock + v * kWidth), value[v]);
    for (int v = 0; v < Count; ++v) value[v] = fma(f2, load(corner + line + v * kWidth), value[v]);
    for (int v = 0; v < Count; ++v)
      value[v] = fma(f3, load(corner + line + kBlock + v * kWidth), value[v]);
    for (int v = 0; v < Count; ++v) sum[v] = fma(load(weight + v * kWidth), value[v], sum[v]);
  }
  for (int v = 0; v < Count; ++v) store(out + lane + v * kWidth, sum[v]);
}

// Pixels [begin, end) of a block; `plan` begins at pixel 0, or is null.
void convolve_pixels(const MotionArguments& a, const Block& block, const float* offset,
                     const Sample* plan, Canvas canvas, int64_t begin, int64_t end) {
  constexpr int kTogether = 4 * kWidth < kBlock ? 4 : kBlock / kWidth;
  const int64_t line = (a.w + 2) * kBlock;
  Sample found[kTile * kMotionTaps];
  alignas(64) float out[kTile * kBlock];
  for (int64_t pixel = begin; pixel < end; pixel += kTile) {
    const int64_t count = at_most(end - pixel, kTile);
    const Sample* samples = found;
    if (plan != nullptr) samples = plan + pixel * kMotionTaps;
    else motion_plan(offset, canvas, pixel, pixel + count, found);
    for (int64_t i = 0; i < count; ++i) {
      int64_t lane = 0;
      for (; lane + kTogether * kWidth <= block.channels; lane += kTogether * kWidth)
        convolve<kTogether>(block, lane, samples + i * kMotionTaps, line, out + i * kBlock);
      for (; lane < block.channels; lane += kWidth)
        convolve<1>(block, lane, samples + i * kMotionTaps, line, out + i * kBlock);
    }
    transpose(out, kBlock, count, block.channels, block.y + pixel, a.h * a.w);
  }
}

}  // namespace

int32_t motion_deform_conv(const MotionArguments& a, Team& team) {
  const Canvas canvas = {static_cast<int32_t>(a.h), static_cast<int32_t>(a.w)};
  const int64_t pixels = a.h * a.w, blocks = (a.c + kBlock - 1) / kBlock;
  const int64_t together = at_most(blocks, team.size());  // canvases held at a time
  const int64_t bands = at_most((2 * team.size() + together - 1) / together, a.h);
  const int64_t size = canvas_pixels(canvas) * kBlock;
  const int64_t plan_floats = pixels * kMotionTaps * static_cast<int64_t>(sizeof(Sample) / 4);
  const bool keep = a.plan == nullptr && blocks > 1 && 4 * plan_floats <= kLargestPlan;
  constexpr int64_t kBlockFloats = static_cast<int64_t>(sizeof(Block) / sizeof(float));
  Floats memory(together * size), shared(together * kBlockFloats), kept(keep ? plan_floats : 0);
  if (!memory || !shared || !kept) return DEBLUR_NO_MEMORY;
  Block* block = reinterpret_cast<Block*>(shared.data());
  const auto row = [&](int64_t band) { return a.h * band / bands; };

  for (int64_t image = 0; image < a.n; ++image) {
    const float* offset = a.offset == nullptr ? nullptr : a.offset + image * 2 * kMotionTaps * pixels;
    const Sample* plan = a.plan == nullptr ? nullptr : a.plan + image * pixels * kMotionTaps;
    for (int64_t first = 0; first < blocks; first += together) {
      const int64_t now = at_most(blocks - first, together);
      for (int64_t b = 0; b < now; ++b)
        block[b].start(a, image, (first + b) * kBlock, memory.data() + b * size);
      // The first time round, the samples are found as well.
      Sample* fresh = keep && first == 0 ? reinterpret_cast<Sample*>(kept.data()) : nullptr;
      if (fresh != nullptr) plan = fresh;
      parallel_for(team, now * bands, [&](int64_t task) {
        const Block& own = block[task / bands];
        const int64_t begin = row(task % bands), end = row(task % bands + 1);
        fill_canvas(own.x, canvas, own.channels, kBlock, begin, end, own.canvas);
        if (fresh != nullptr && task < bands)
          motion_plan(offset, canvas, begin * a.w, end * a.w, fresh + begin * a.w * kMotionTaps);
      });
      parallel_for(team, now * bands, [&](int64_t task) {
        convolve_pixels(a, block[task / bands], offset, plan, canvas, row(task % bands) * a.w,
                        row(task % bands + 1) * a.w);
      });
    }
  }
  return DEBLUR_OK;
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
