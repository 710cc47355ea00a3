// The functions of PrunedConv in deblur_cuda.h: they check their arguments, divide the workspace
// and launch the kernels, band by band.
#include "kernel.cuh"

#include "../common/sizes.h"

namespace {

using deblur::element_count;

// Bytes of the hidden rows of a band, unless three lines have more.
constexpr int64_t kMostHidden = DEBLUR_BOUND(int64_t{1} << 28, 8192);

bool fits(int32_t type, int64_t n, int64_t c, int64_t h, int64_t w) {
  constexpr int64_t kMostPixels = INT64_C(1) << 30;  // pixel numbers are 32-bit
  const int64_t pixels = element_count({n, h, w}), lines = element_count({n, h});
  return deblur::is_type(type) && element_count({n, c, h, w}) >= 0 &&
         element_count({c, c, 2}) >= 0 && element_count({n, c + 4, h, w, 2}) >= 0 && pixels >= 0 &&
         pixels < kMostPixels && lines >= 0 && lines < kMostPixels && element_count({h, w}) >= 0;
}

// The parts of the workspace. `hidden` holds the rows of a band and of one line on each side, even
// if all of their pixels are listed.
struct Parts {
  Parts(deblur::Workspace& memory, int32_t type, int64_t n, int64_t c, int64_t h, int64_t w)
      : lines(n * h),
        row{c, deblur::round_up(c, 4)},
        blocks(deblur::ceil_div(lines * w, deblur::kListPixels)),
        list(memory.take<int32_t>(lines * w)),
        positions(memory.take<int32_t>(lines * w)),
        line_starts(memory.take<int32_t>(lines + 1)),
        counts(memory.take<int32_t>(blocks)) {
    const int64_t line = w * row.row_stride() * deblur::size_of(type);
    const int64_t bytes = deblur::smaller(lines * line, deblur::larger(kMostHidden, 3 * line));
    band = line == 0 ? lines : deblur::larger(deblur::smaller(bytes / line, lines) - 2, 1);
    if (bytes == lines * line) band = lines;
    hidden = memory.take<char>(bytes);
  }
  int64_t lines;
  deblur::HiddenRow row;
  int64_t blocks, band;  // blocks of the list; lines of a band
  int32_t *list, *positions, *line_starts, *counts;
  char* hidden;
};

}  // namespace

int64_t deblur_cuda_pruned_conv_workspace(int32_t type, int64_t n, int64_t c, int64_t h,
                                          int64_t w) {
  if (!fits(type, n, c, h, w)) return -1;
  deblur::Workspace memory;
  Parts(memory, type, n, c, h, w);
  return memory.bytes();
}

int32_t deblur_cuda_pruned_conv(int32_t type, const void* x, const void* mask, const void* weight1,
                                const void* bias1, const void* weight2, const void* bias2, void* y,
                                int64_t n, int64_t c, int64_t h, int64_t w, void* workspace,
                                int64_t workspace_bytes, void* stream) {
  // Attributes, sizes, tensors, workspace, in this order: a call without values needs none of the
  // latter.
  if (!deblur::is_type(type)) return DEBLUR_CUDA_BAD_ARGUMENT;
  if (!fits(type, n, c, h, w)) return DEBLUR_CUDA_BAD_SIZE;
  if (n * c * h * w == 0) return DEBLUR_CUDA_OK;
  if (!x || !mask || !weight1 || !bias1 || !weight2 || !bias2 || !y) return DEBLUR_CUDA_NO_TENSOR;
  const int64_t needed = deblur_cuda_pruned_conv_workspace(type, n, c, h, w);
  if (const int32_t code = deblur::check_workspace(workspace, workspace_bytes, needed)) return code;
  return deblur::with_type(type, [&](auto value) {
    using T = decltype(value);
    deblur::Workspace memory(workspace);
    const Parts parts(memory, type, n, c, h, w);
    const deblur::Mask<T> masked = {static_cast<const T*>(mask), parts.lines, h, w};
    const T* features = static_cast<const T*>(x);
    T* hidden = reinterpret_cast<T*>(parts.hidden);
    // The list of the dilated mask.
    deblur::Queue queue(stream);
    queue.launch(deblur::CountPixels<T>{masked, parts.counts}, parts.blocks);
    queue.launch(deblur::AddCounts{parts.counts, parts.blocks}, 1);
    const deblur::ListPixels<T> list = {masked, parts.counts, parts.list, parts.positions,
                                        parts.line_starts};
    queue.launch(list, parts.blocks);
    // The bands. `most` lines have at most that many tiles; the kernel finds out how many there
    // are.
    for (int64_t begin = 0; begin < parts.lines; begin += parts.band) {
      const int64_t end = deblur::smaller(begin + parts.band, parts.lines);
      const deblur::Band band = {parts.list, parts.positions, parts.line_starts, begin,
                                 end,        parts.lines};
      const int64_t most = deblur::smaller(end + 1, parts.lines) - deblur::larger(begin - 1, 0);
      using Product = deblur::PrunedPointwise<T>;
      const int64_t tiles =
          deblur::ceil_div(most * w, deblur::kTileM) * deblur::ceil_div(2 * c, deblur::kTileN);
      const int64_t blocks = deblur::smaller(tiles, Product::kMostBlocks);
      const bool aligned4 =
          c % 4 == 0 && reinterpret_cast<uintptr_t>(weight1) % (4 * sizeof(T)) == 0;
      queue.launch(Product{features, static_cast<const T*>(weight1), static_cast<const T*>(bias1),
                           hidden, band, parts.row, h * w, blocks, aligned4},
                   blocks);
      const deblur::PrunedDepthwise<T> finish = {features,
                                                 hidden,
                                                 static_cast<const T*>(weight2),
                                                 static_cast<const T*>(bias2),
                                                 static_cast<T*>(y),
                                                 masked,
                                                 band,
                                                 parts.row};
      queue.launch(finish, finish.blocks());
    }
    return queue.code();
  });
}
