// The CUDA kernel of LocalMean, the pooling of TLC (Chu et al. 2022, arXiv:2112.04491, Sec. 3): the
// mean over a window around each pixel, the border repeated; plugins/ops/local_mean.py has the
// formula. The mean is separable: first along the rows, then along the columns. Along an axis, a
// window of 2n is put together from two windows of n, m_2n[i] = (m_n[i] + m_n[i + n]) / 2, so that
// no value leaves the range of x and an axis costs log2(kernel) additions.
#pragma once

#include "../common/launch.cuh"

namespace deblur {

constexpr int kLargestWindow = 384;

// The means along one axis of x [planes, h, w]. A block computes a run of windows of eight
// neighbouring lines. The first launch goes along the rows, T -> float, and writes the windows of a
// row from its left end on; the second, `Down`, goes along the columns, float -> T, and repeats the
// border of both axes.
template <typename From, typename To, bool Down>
struct SlideMean {
  static constexpr int kThreads = 256;
  static constexpr int kLines = 8;
  static constexpr int kRun = 256;                           // windows of a block
  static constexpr int kLength = kRun + kLargestWindow - 1;  // values that they need, at most
  static constexpr int kHeld = (kLength * kLines + kThreads - 1) / kThreads;  // values of a thread
  struct Shared {
    float value[kLength * kLines];  // [position][line]
  };
  const From* x;
  To* y;
  int64_t planes, h, w;
  int32_t kernel;

  DEBLUR_FN int64_t length() const { return Down ? h : w; }
  DEBLUR_FN int64_t lines() const { return Down ? w : h; }
  DEBLUR_FN int64_t windows() const { return larger(length() - kernel + 1, 1); }
  DEBLUR_FN int64_t runs() const { return ceil_div(windows(), kRun); }
  DEBLUR_FN int64_t groups() const { return ceil_div(lines(), kLines); }
  int64_t blocks() const { return planes * groups() * runs(); }

  template <typename Block>
  DEBLUR_FN void operator()(Block& block, Shared& shared) const {
    const int64_t group = block.index % groups() * kLines;
    const int64_t first = block.index / groups() % runs() * kRun;
    const int64_t plane = block.index / (groups() * runs());
    const int used = static_cast<int>(smaller(lines() - group, kLines));
    const int count = static_cast<int>(smaller(length() - first, kRun + kernel - 1));
    // Load the values of all windows of the block. Neighbouring threads read neighbouring values:
    // of one row, or of eight columns.
    for (int i = block.thread; i < count * kLines; i += kThreads) {
      const int line = Down ? i % kLines : i / count, position = Down ? i / kLines : i % count;
      shared.value[position * kLines + line] =
          line < used ? to_float(x[plane * h * w + from(group + line, first + position)]) : 0.0f;
    }
    block.sync();
    // An axis that is shorter than the window has one mean, of all its values.
    if (length() < kernel) {
      if (block.thread < kLines) {
        float sum = 0.0f;
        for (int i = 0; i < count; ++i) sum += shared.value[i * kLines + block.thread];
        shared.value[block.thread] = sum / static_cast<float>(count);
      }
      block.sync();
    } else {
      double_windows(block, shared, count);
    }
    // Write the means, again with neighbouring threads at neighbouring values.
    const int done = static_cast<int>(smaller(windows() - first, kRun));
    for (int i = block.thread; i < done * kLines; i += kThreads) {
      const int line = Down ? i % kLines : i / done, position = Down ? i / kLines : i % done;
      if (line < used)
        write(plane, group + line, first + position, shared.value[position * kLines + line]);
    }
  }

 private:
  // Replaces the values by the means of windows of three, then of windows of twice the size until
  // they have `kernel`. Every thread reads its means into registers before a barrier and writes
  // them after it, so that nobody reads what was overwritten already.
  template <typename Block>
  DEBLUR_FN void double_windows(Block& block, Shared& shared, int count) const {
    int left = (count - 2) * kLines;
    for (int width = 0; width < kernel; width = width == 0 ? 3 : 2 * width) {
      float mean[kHeld];
      if (width > 0) left -= width * kLines;
      DEBLUR_UNROLL
      for (int j = 0; j < kHeld; ++j) {
        const int i = block.thread + j * kThreads;
        if (i >= left) continue;
        const float* at = shared.value + i;
        mean[j] = width == 0 ? (at[0] + at[kLines] + at[2 * kLines]) * (1.0f / 3.0f)
                             : (at[0] + at[width * kLines]) * 0.5f;
      }
      block.sync();
      DEBLUR_UNROLL
      for (int j = 0; j < kHeld; ++j) {
        const int i = block.thread + j * kThreads;
        if (i < left) shared.value[i] = mean[j];
      }
      block.sync();
    }
  }

  // Position of a value in its plane of x. In the second pass the windows of a row lie at its left
  // end: every column reads the window of its pixel, which repeats the border of the rows.
  DEBLUR_FN int64_t from(int64_t line, int64_t position) const {
    if (!Down) return line * w + position;
    const int64_t means = larger(w - kernel + 1, 1), left = (w - means) / 2;
    return position * w + smaller(larger(line - left, 0), means - 1);
  }

  // Writes the mean of a window; in the second pass the first and the last window of a column are
  // repeated to the border.
  DEBLUR_FN void write(int64_t plane, int64_t line, int64_t window, float mean) const {
    To* own = y + plane * h * w;
    if (!Down) {
      own[line * w + window] = from_float<To>(mean);
      return;
    }
    const int64_t top = (h - windows()) / 2;
    const int64_t begin = window == 0 ? 0 : top + window;
    const int64_t end = window == windows() - 1 ? h : top + window + 1;
    for (int64_t i = begin; i < end; ++i) own[i * w + line] = from_float<To>(mean);
  }
};

}  // namespace deblur
