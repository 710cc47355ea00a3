// MotionDeformConv of features with the channels last: a pixel is a row already, so that nothing is
// copied. All channels of a pixel go one after the other, which reads whole rows; a strip goes down
// the image, so that the rows around it stay in the cache.
#include <string.h>

#include "../common/buffer.h"
#include "../common/features.h"
#include "arguments.h"
#include "pairs.h"
#include "slice.h"

namespace deblur {
namespace DEBLUR_TARGET {
namespace {

constexpr int64_t kLine = 16;  // floats of a cache line, which tasks do not share

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

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
constexpr int64_t kAhead = 4;  // image rows

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
