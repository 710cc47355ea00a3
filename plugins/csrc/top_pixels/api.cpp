#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>

#include "../common/buffer.h"
#include "../common/parallel.h"
#include "../common/sizes.h"

using deblur::product;

namespace {

// `lowest` gets the scores without nan, which would not be in order; `work` is as long.
void choose(const float* scores, float* lowest, float* work, int64_t* index, int64_t pixels,
            int64_t count) {
  for (int64_t i = 0; i < pixels; ++i) {
    const bool number = scores[i] == scores[i];
    lowest[i] = work[i] = number ? scores[i] : -std::numeric_limits<float>::infinity();
  }
  std::nth_element(work, work + count - 1, work + pixels, std::greater<float>());
  const float border = work[count - 1];
  int64_t equal = count - std::count_if(lowest, lowest + pixels, [=](float s) { return s > border; });
  for (int64_t i = 0; i < pixels; ++i)
    if (lowest[i] > border || (lowest[i] == border && equal-- > 0)) *index++ = i;
}

}  // namespace

int32_t deblur_top_pixels(const float* scores, int64_t* index, int64_t n, int64_t pixels,
                          int64_t count, const deblur_threads* threads) {
  if (product({n, pixels, 2}) < 0 || count < 0 || count > pixels) return DEBLUR_BAD_SIZE;
  if (n * count == 0) return DEBLUR_OK;
  if (!scores || !index) return DEBLUR_NO_TENSOR;
  std::atomic<bool> memory{true};
  deblur::Team team(threads);
  deblur::parallel_for(team, n, [&](int64_t image) {
    const deblur::Floats work(2 * pixels);
    if (!work) {
      memory = false;
      return;
    }
    choose(scores + image * pixels, work.data(), work.data() + pixels, index + image * count,
           pixels, count);
  });
  return memory ? DEBLUR_OK : DEBLUR_NO_MEMORY;
}
