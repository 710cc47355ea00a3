// deblur_top_pixels of deblur_cpu.h, which selects with std::nth_element, one image for each task.
#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>

#include "../common/buffer.h"
#include "../common/parallel.h"
#include "../common/sizes.h"

using deblur::element_count;

namespace {

// The `count` pixels with the highest scores of one image. `ordered` [pixels] gets the scores with
// minus infinity in place of NaN, which has no order; `work` [pixels] is scratch.
void choose(const float* scores, float* ordered, float* work, int64_t* index, int64_t pixels,
            int64_t count) {
  for (int64_t i = 0; i < pixels; ++i) {
    const bool number = scores[i] == scores[i];
    ordered[i] = work[i] = number ? scores[i] : -std::numeric_limits<float>::infinity();
  }
  // The lowest chosen score. What lies above it is chosen; of those that equal it, the first few,
  // until there are `count`.
  std::nth_element(work, work + count - 1, work + pixels, std::greater<float>());
  const float threshold = work[count - 1];
  int64_t equal =
      count - std::count_if(ordered, ordered + pixels, [=](float s) { return s > threshold; });
  for (int64_t i = 0; i < pixels; ++i)
    if (ordered[i] > threshold || (ordered[i] == threshold && equal-- > 0)) *index++ = i;
}

}  // namespace

int32_t deblur_top_pixels(const float* scores, int64_t* index, int64_t n, int64_t pixels,
                          int64_t count, const deblur_threads* threads) {
  if (element_count({n, pixels, 2}) < 0 || count < 0 || count > pixels) return DEBLUR_BAD_SIZE;
  if (n * count == 0) return DEBLUR_OK;
  if (!scores || !index) return DEBLUR_NO_TENSOR;
  // A task is one image.
  std::atomic<bool> memory{true};
  deblur::ThreadPool pool(threads);
  deblur::parallel_for(pool, n, [&](int64_t image) {
    const deblur::FloatBuffer work(2 * pixels);
    if (!work) {
      memory = false;
      return;
    }
    choose(scores + image * pixels, work.data(), work.data() + pixels, index + image * count,
           pixels, count);
  });
  return memory ? DEBLUR_OK : DEBLUR_NO_MEMORY;
}
