// The CPU kernel of MotionDeformConv for NCHW (M2AENet, arXiv:2507.07708, Sec. 3.3; the sampling is
// that of bilinear.h):
//
//   z[c, p] = bias[c] + sum_k weight[c, k] x[c](p + g_k + offset_k(p)),   y = z, or z[c] z[C/2 + c]
//
// A block of channels is copied into a padded image with the channels last. The samples of a pixel
// are found once for all channels, and a neighbour is a load of channels that lie side by side.
// With the gate, a block holds both channels of its pairs.
#include "../common/buffer.h"
#include "../common/padded.h"
#include "arguments.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kBlock = 32;  // channels of a padded image: 128 bytes for each pixel
constexpr int64_t kTile = 64;   // pixels whose results are transposed to NCHW at a time
// Bytes of the samples of an image. Where they are more, every block of channels finds them again.
constexpr int64_t kLargestPlan = int64_t{1} << 28;

// A block of channels of one image. It has two parts with the gate, one without: the lanes of a
// part hold neighbouring channels of one half of the tensor. weights is [taps][kBlock], zero in
// lanes without a channel.
struct Block {
  const MotionArguments* a;
  float* padded;  // [padded pixels, kBlock]
  int64_t image, parts;
  int64_t lanes, first, channels;  // of a part: its lanes, its first channel, how many are used
  float weights[kMotionTaps * kBlock], bias[kBlock];

  // Prepares block `number` of an image, whose padded image is in `memory`.
  void start(const MotionArguments& arguments, int64_t of_image, int64_t number, float* memory) {
    a = &arguments;
    image = of_image;
    parts = a->gate ? 2 : 1;
    lanes = kBlock / parts;
    first = number * lanes;
    channels = at_most(outputs() - first, lanes);
    padded = memory;
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

  // Copies the image rows [begin, end) into the padded image.
  void fill(int64_t begin, int64_t end) const {
    const ImageSize size = image_size(a->h, a->w);
    const float* x = static_cast<const float*>(a->x) + (image * a->c + first) * pixels();
    clear_border(size, kBlock, channels < lanes, begin, end, padded);
    for (int64_t part = 0; part < parts; ++part)
      fill_padded(x + part * outputs() * pixels(), size, channels, kBlock, begin, end,
                  padded + part * lanes);
  }

  // Writes results [count][kBlock] of the pixels from `pixel` on to y.
  void write(const float* results, int64_t pixel, int64_t count) const {
    float* y = static_cast<float*>(a->y) + (image * outputs() + first) * pixels() + pixel;
    transpose(results, kBlock, count, channels, y, pixels());
  }
};

// One pixel: sums over all taps for `Count` vectors of channels from `lane` on; `line` is the
// length of a row of the padded image. The loops over `Count` are unrolled: each vector is an
// independent chain of fused multiply-adds.
template <int Count>
DEBLUR_INLINE void convolve(const Block& block, int64_t lane, const Sample* samples, int64_t line,
                            float* out) {
  Vec sum[Count];
  for (int v = 0; v < Count; ++v) sum[v] = load(block.bias + lane + v * kWidth);
  for (int64_t tap = 0; tap < kMotionTaps; ++tap) {
    const float* corner = block.padded + samples[tap].base * kBlock + lane;
    const float* weight = block.weights + tap * kBlock + lane;
    const float* factor = samples[tap].factor;
    // Interpolate between the four corners, then add the tap.
    Vec value[Count];
    const Vec f0 = set(factor[0]), f1 = set(factor[1]), f2 = set(factor[2]), f3 = set(factor[3]);
    for (int v = 0; v < Count; ++v) value[v] = f0 * load(corner + v * kWidth);
    for (int v = 0; v < Count; ++v)
      value[v] = fma(f1, load(corner + kBlock + v * kWidth), value[v]);
    for (int v = 0; v < Count; ++v) value[v] = fma(f2, load(corner + line + v * kWidth), value[v]);
    for (int v = 0; v < Count; ++v)
      value[v] = fma(f3, load(corner + line + kBlock + v * kWidth), value[v]);
    for (int v = 0; v < Count; ++v) sum[v] = fma(load(weight + v * kWidth), value[v], sum[v]);
  }
  for (int v = 0; v < Count; ++v) store(out + lane + v * kWidth, sum[v]);
}

// Computes the pixels [begin, end) of a block, a tile at a time; `plan` begins at pixel 0, or is
// null.
void convolve_pixels(const MotionArguments& a, const Block& block, const float* offset,
                     const Sample* plan, ImageSize size, int64_t begin, int64_t end) {
  constexpr int kTogether = 4 * kWidth < kBlock ? 4 : kBlock / kWidth;
  const int64_t line = (a.w + 2) * kBlock, used = a.gate ? kBlock : block.channels;
  Sample found[kTile * kMotionTaps];
  alignas(64) float out[kTile * kBlock];
  for (int64_t pixel = begin; pixel < end; pixel += kTile) {
    const int64_t count = at_most(end - pixel, kTile);
    // The samples of the tile, from the plan or from the offsets.
    const Sample* samples = found;
    if (plan != nullptr) samples = plan + pixel * kMotionTaps;
    else motion_plan(offset, size, pixel, pixel + count, found);
    for (int64_t i = 0; i < count; ++i) {
      float* sums = out + i * kBlock;
      int64_t lane = 0;
      for (; lane + kTogether * kWidth <= used; lane += kTogether * kWidth)
        convolve<kTogether>(block, lane, samples + i * kMotionTaps, line, sums);
      for (; lane < used; lane += kWidth)
        convolve<1>(block, lane, samples + i * kMotionTaps, line, sums);
      // The gate multiplies the lanes of the first part by those of the second.
      if (!a.gate) continue;
      for (lane = 0; lane < block.channels; lane += kWidth)
        store(sums + lane, load(sums + lane) * load(sums + block.lanes + lane));
    }
    block.write(out, pixel, count);
  }
}

}  // namespace

int32_t motion_deform_conv_nchw(const MotionArguments& a, ThreadPool& pool) {
  const ImageSize size = image_size(a.h, a.w);
  const int64_t pixels = a.h * a.w, lanes = a.gate ? kBlock / 2 : kBlock;
  const int64_t blocks = ((a.gate ? a.c / 2 : a.c) + lanes - 1) / lanes;
  const int64_t workers = at_most(blocks, pool.size());  // each with a padded image
  const int64_t bands = at_most(2 * pool.size(), a.h);
  const int64_t padded_floats = padded_pixels(size) * kBlock;
  const int64_t plan_floats = pixels * kMotionTaps * static_cast<int64_t>(sizeof(Sample) / 4);
  // With several blocks of channels and no plan, the samples of an image are found once and kept.
  const bool keep = a.plan == nullptr && blocks > 1 && 4 * plan_floats <= kLargestPlan;
  constexpr int64_t kBlockFloats = static_cast<int64_t>(sizeof(Block) / sizeof(float));
  FloatBuffer memory(workers * padded_floats), shared(workers * kBlockFloats),
      kept(keep ? plan_floats : 0);
  if (!memory || !shared || !kept) return DEBLUR_NO_MEMORY;
  Block* block = reinterpret_cast<Block*>(shared.data());
  Sample* fresh = keep ? reinterpret_cast<Sample*>(kept.data()) : nullptr;
  const auto row = [&](int64_t band) { return a.h * band / bands; };

  for (int64_t image = 0; image < a.n; ++image) {
    const float* offset =
        a.offset == nullptr ? nullptr : a.offset + image * 2 * kMotionTaps * pixels;
    const Sample* plan = fresh;
    if (a.plan != nullptr) plan = a.plan + image * pixels * kMotionTaps;
    if (keep)
      parallel_for(pool, bands, [&](int64_t band) {
        const int64_t begin = row(band) * a.w, end = row(band + 1) * a.w;
        motion_plan(offset, size, begin, end, fresh + begin * kMotionTaps);
      });
    // As many blocks as threads or more: every thread computes whole blocks and waits for nobody.
    if (workers == pool.size()) {
      parallel_for(pool, workers, [&](int64_t worker) {
        Block& own = block[worker];
        for (int64_t b = blocks * worker / workers; b < blocks * (worker + 1) / workers; ++b) {
          own.start(a, image, b, memory.data() + worker * padded_floats);
          own.fill(0, a.h);
          convolve_pixels(a, own, offset, plan, size, 0, pixels);
        }
      });
      continue;
    }
    for (int64_t b = 0; b < blocks; ++b)
      block[b].start(a, image, b, memory.data() + b * padded_floats);
    parallel_for(pool, blocks * bands, [&](int64_t task) {
      block[task / bands].fill(row(task % bands), row(task % bands + 1));
    });
    parallel_for(pool, blocks * bands, [&](int64_t task) {
      convolve_pixels(a, block[task / bands], offset, plan, size, row(task % bands) * a.w,
                      row(task % bands + 1) * a.w);
    });
  }
  return DEBLUR_OK;
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
