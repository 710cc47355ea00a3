// MotionDeformConv: blocks of channels as rows, so that the samples of a pixel, found once, serve
// all channels, and a corner is a load of neighbouring floats. With the gate, a block holds both
// halves of its pairs of channels.
#include "../common/buffer.h"
#include "../common/padded.h"
#include "arguments.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kBlock = 32;  // channels of a canvas: 128 B a pixel
constexpr int64_t kTile = 64;   // pixels of a result that are turned to channel-major at a time
constexpr int64_t kLargestPlan = int64_t{1} << 28;  // bytes; beyond, samples are found again

int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

// What the channels of a block have in common: those of each of `parts` parts of the tensor lie
// side by side; weights [taps][kBlock], zero in lanes without a channel.
struct Block {
  const MotionArguments* a;
  float* canvas;
  int64_t image, parts, lanes, first, channels;  // lanes and channels of a part
  float weights[kMotionTaps * kBlock], bias[kBlock];

  void start(const MotionArguments& arguments, int64_t of_image, int64_t number, float* memory) {
    a = &arguments;
    image = of_image;
    parts = a->gate ? 2 : 1;
    lanes = kBlock / parts;
    first = number * lanes;
    channels = at_most(outputs() - first, lanes);
    canvas = memory;
    for (int64_t at = 0; at < kBlock; ++at) {
      const bool used = at % lanes < channels;
      const int64_t channel = used ? at / lanes * outputs() + first + at % lanes : 0;
      bias[at] = used ? a->bias[channel] : 0.0f;
      for (int64_t tap = 0; tap < kMotionTaps; ++tap)
        weights[tap * kBlock + at] = used ? a->weight[channel * kMotionTaps + tap] : 0.0f;
    }
  }

  int64_t outputs() const { return a->c / parts; }
  int64_t pixels() const { return a->h * a->w; }

  // Image rows [begin, end).
  void fill(int64_t begin, int64_t end) const {
    const Canvas size = {static_cast<int32_t>(a->h), static_cast<int32_t>(a->w)};
    const float* x = static_cast<const float*>(a->x) + (image * a->c + first) * pixels();
    clear_canvas(size, kBlock, channels < lanes, begin, end, canvas);
    for (int64_t part = 0; part < parts; ++part)
      fill_canvas(x + part * outputs() * pixels(), size, channels, kBlock, begin, end,
                  canvas + part * lanes);
  }

  // Results [count][kBlock] of the pixels from `pixel` on.
  void write(const float* results, int64_t pixel, int64_t count) const {
    float* y = static_cast<float*>(a->y) + (image * outputs() + first) * pixels() + pixel;
    transpose(results, kBlock, count, channels, y, pixels());
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
  const int64_t line = (a.w + 2) * kBlock, used = a.gate ? kBlock : block.channels;
  Sample found[kTile * kMotionTaps];
  alignas(64) float out[kTile * kBlock];
  for (int64_t pixel = begin; pixel < end; pixel += kTile) {
    const int64_t count = at_most(end - pixel, kTile);
    const Sample* samples = found;
    if (plan != nullptr) samples = plan + pixel * kMotionTaps;
    else motion_plan(offset, canvas, pixel, pixel + count, found);
    for (int64_t i = 0; i < count; ++i) {
      float* sums = out + i * kBlock;
      int64_t lane = 0;
      for (; lane + kTogether * kWidth <= used; lane += kTogether * kWidth)
        convolve<kTogether>(block, lane, samples + i * kMotionTaps, line, sums);
      for (; lane < used; lane += kWidth)
        convolve<1>(block, lane, samples + i * kMotionTaps, line, sums);
      if (!a.gate) continue;
      for (lane = 0; lane < block.channels; lane += kWidth)
        store(sums + lane, load(sums + lane) * load(sums + block.lanes + lane));
    }
    block.write(out, pixel, count);
  }
}

}  // namespace

int32_t motion_deform_conv(const MotionArguments& a, Team& team) {
  const Canvas canvas = {static_cast<int32_t>(a.h), static_cast<int32_t>(a.w)};
  const int64_t pixels = a.h * a.w, lanes = a.gate ? kBlock / 2 : kBlock;
  const int64_t blocks = ((a.gate ? a.c / 2 : a.c) + lanes - 1) / lanes;
  const int64_t workers = at_most(blocks, team.size());  // each with a canvas
  const int64_t bands = at_most(2 * team.size(), a.h);
  const int64_t size = canvas_pixels(canvas) * kBlock;
  const int64_t plan_floats = pixels * kMotionTaps * static_cast<int64_t>(sizeof(Sample) / 4);
  const bool keep = a.plan == nullptr && blocks > 1 && 4 * plan_floats <= kLargestPlan;
  constexpr int64_t kBlockFloats = static_cast<int64_t>(sizeof(Block) / sizeof(float));
  Floats memory(workers * size), shared(workers * kBlockFloats), kept(keep ? plan_floats : 0);
  if (!memory || !shared || !kept) return DEBLUR_NO_MEMORY;
  Block* block = reinterpret_cast<Block*>(shared.data());
  Sample* fresh = keep ? reinterpret_cast<Sample*>(kept.data()) : nullptr;
  const auto row = [&](int64_t band) { return a.h * band / bands; };

  for (int64_t image = 0; image < a.n; ++image) {
    const float* offset = a.offset == nullptr ? nullptr : a.offset + image * 2 * kMotionTaps * pixels;
    const Sample* plan = fresh;
    if (a.plan != nullptr) plan = a.plan + image * pixels * kMotionTaps;
    if (keep)
      parallel_for(team, bands, [&](int64_t band) {
        const int64_t begin = row(band) * a.w, end = row(band + 1) * a.w;
        motion_plan(offset, canvas, begin, end, fresh + begin * kMotionTaps);
      });
    if (workers == team.size()) {  // each has blocks of its own and waits for nobody
      parallel_for(team, workers, [&](int64_t worker) {
        Block& own = block[worker];
        for (int64_t b = blocks * worker / workers; b < blocks * (worker + 1) / workers; ++b) {
          own.start(a, image, b, memory.data() + worker * size);
          own.fill(0, a.h);
          convolve_pixels(a, own, offset, plan, canvas, 0, pixels);
        }
      });
      continue;
    }
    for (int64_t b = 0; b < blocks; ++b) block[b].start(a, image, b, memory.data() + b * size);
    parallel_for(team, blocks * bands, [&](int64_t task) {
      block[task / bands].fill(row(task % bands), row(task % bands + 1));
    });
    parallel_for(team, blocks * bands, [&](int64_t task) {
      convolve_pixels(a, block[task / bands], offset, plan, canvas, row(task % bands) * a.w,
                      row(task % bands + 1) * a.w);
    });
  }
  return DEBLUR_OK;
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
