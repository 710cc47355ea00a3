// The CPU kernel of MotionDeformConv for NHWC, in float32 and bfloat16; the formula is in
// kernel_nchw.cpp. A pixel is a row of channels already, so that nothing is copied. All channels of
// a pixel are computed one after the other, which reads whole rows of x. The image is cut into
// vertical strips: going down a strip, the rows of x around it stay in the cache.
#include <string.h>

#include "../common/bf16.h"
#include "../common/buffer.h"
#include "arguments.h"
#include "pairs.h"
#include "slice.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kLine = 16;  // floats of a cache line; tasks do not write to the same one

// The strips of all images, cut into bands of rows so that every thread has several tasks.
class Strips {
 public:
  Strips(const MotionArguments& a, const ThreadPool& pool)
      : a_(a),
        strips_((a.w + kSlice - 1) / kSlice),
        bands_(at_most((4 * pool.size() + strips_ - 1) / strips_, a.h)) {}

  int64_t tasks() const { return a_.n * strips_ * bands_; }

  // Calls body(image, slice, begin, count, task) for every slice, which is the pixels [begin, begin
  // + count) of one row of a strip; `first` is the first image, of which the others follow.
  template <class T, class Body>
  void run(ThreadPool& pool, const Image<T>& first, const Body& body) const {
    const ImageSize size = image_size(a_.h, a_.w);
    const int64_t pixels = a_.h * a_.w, outputs = a_.gate ? a_.c / 2 : a_.c;
    parallel_for(pool, tasks(), [&](int64_t task) {
      const int64_t image_index = task / (strips_ * bands_), rest = task % (strips_ * bands_);
      const int64_t left = rest / bands_ * kSlice, count = at_most(a_.w - left, kSlice);
      const int64_t band = rest % bands_;
      Image<T> image = first;
      image.x += image_index * pixels * a_.c;
      image.y += image_index * pixels * outputs;
      const float* offset =
          a_.offset ? a_.offset + image_index * 2 * kMotionTaps * pixels : nullptr;
      const Sample* plan = a_.plan ? a_.plan + image_index * pixels * kMotionTaps : nullptr;
      Slice slice{};
      for (int64_t y = a_.h * band / bands_; y < a_.h * (band + 1) / bands_; ++y) {
        slice.find(offset, plan, size, y * a_.w + left, count);
        body(image, slice, y * a_.w + left, count, task);
      }
    });
  }

 private:
  const MotionArguments& a_;
  int64_t strips_, bands_;
};

// All slices by Image::convolve_pixel, in float32 arithmetic; T is what x and y hold.
template <class T>
int32_t convolve_all(const MotionArguments& a, const T* zero_pixel, ThreadPool& pool) {
  const Strips strips(a, pool);
  const int64_t outputs = a.gate ? a.c / 2 : a.c, sums = round_up(a.c, kLine);
  FloatBuffer weights(kMotionTaps * a.c), scratch(strips.tasks() * sums);
  if (!weights || !scratch) return DEBLUR_NO_MEMORY;
  for (int64_t channel = 0; channel < a.c; ++channel)
    for (int64_t tap = 0; tap < kMotionTaps; ++tap)
      weights.data()[tap * a.c + channel] = a.weight[channel * kMotionTaps + tap];
  const Image<T> first = {static_cast<const T*>(a.x),
                          weights.data(),
                          a.bias,
                          zero_pixel,
                          static_cast<T*>(a.y),
                          a.c,
                          a.h,
                          a.w,
                          a.gate};
  strips.run(
      pool, first,
      [&](const Image<T>& image, const Slice& slice, int64_t begin, int64_t count, int64_t task) {
        for (int64_t i = 0; i < count; ++i)
          image.convolve_pixel(slice, i, scratch.data() + task * sums,
                               image.y + (begin + i) * outputs);
      });
  return DEBLUR_OK;
}

#if defined(DEBLUR_PAIRS)
constexpr int64_t kAhead = 4;  // image rows between a prefetch and its use

// All slices by the bfloat16 instructions of pairs.h.
int32_t convolve_pairs(const MotionArguments& a, const Bf16* zero_pixel, ThreadPool& pool) {
  const Pairs pairs(a.weight, a.bias, a.c, a.gate);
  if (!pairs) return DEBLUR_NO_MEMORY;
  const int64_t outputs = a.gate ? a.c / 2 : a.c;
  const Image<Bf16> first = {static_cast<const Bf16*>(a.x),
                             nullptr,
                             nullptr,
                             zero_pixel,
                             static_cast<Bf16*>(a.y),
                             a.c,
                             a.h,
                             a.w,
                             a.gate};
  Strips(a, pool).run(
      pool, first,
      [&](const Image<Bf16>& image, const Slice& slice, int64_t begin, int64_t count, int64_t) {
        const int64_t ahead = at_most(begin + kAhead * a.w, a.h * a.w - count);
        pairs.convolve_slice(image, slice, count, image.x + ahead * a.c, image.y + begin * outputs);
      });
  return DEBLUR_OK;
}
#endif

}  // namespace

int32_t motion_deform_conv_nhwc(const MotionArguments& a, ThreadPool& pool) {
  // A row of zeros stands for every pixel outside the image; it serves both types.
  const FloatBuffer zeros(a.c);
  if (!zeros) return DEBLUR_NO_MEMORY;
  memset(zeros.data(), 0, sizeof(float) * static_cast<size_t>(a.c));
  const Bf16* bf16_zeros = reinterpret_cast<const Bf16*>(zeros.data());
  if (a.layout != DEBLUR_NHWC_BF16) return convolve_all<float>(a, zeros.data(), pool);
#if defined(DEBLUR_PAIRS)
  if (chosen_isa() == Isa::avx512_bf16) return convolve_pairs(a, bf16_zeros, pool);
#endif
  return convolve_all<Bf16>(a, bf16_zeros, pool);
}

}  // namespace DEBLUR_TARGET
}  // namespace deblur
