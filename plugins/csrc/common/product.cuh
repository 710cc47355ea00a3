// A tile of a matrix product by one block: float32 by the ordinary units, half and bfloat16 by the
// tensor cores, sums in float32.
//
// A Problem says what is multiplied: depth(), and for eight neighbouring k from a multiple of eight
//   row(i) -> Row; left(row, k, T*): those of row i;   right(j, k, T*): those of column j
//   (the destinations are aligned to 16 bytes)
// zero where there are none; finish(thread, row, column, sums) takes the result [kRows][kOutPitch].
#pragma once

#include "launch.cuh"

#if defined(DEBLUR_EMULATION)
#include "../emulation/wmma.h"
#else
#include <mma.h>
#endif

namespace deblur {

constexpr int kRows = 64, kColumns = 128, kDepth = 32;
constexpr int kProductThreads = 256;
constexpr int kOutPitch = kColumns + 4;
constexpr int kRun = 8;  // neighbouring k that a thread loads

// Rows are a multiple of 16 bytes, and lie so that eight of them touch different banks.
template <typename T>
constexpr int kProductPitch = kDepth + 16 / static_cast<int>(sizeof(T));

template <typename T>
union ProductTile {
  struct {
    alignas(32) T left[kRows * kProductPitch<T>];
    alignas(32) T right[kColumns * kProductPitch<T>];
  } in;
  alignas(32) float out[kRows * kOutPitch];
};

// What one thread holds of the result: four rows, and every 16th column.
template <typename T>
class Sums {
 public:
  DEBLUR_FN explicit Sums(int thread) : row_(thread / 16 * 4), column_(thread % 16) {
    DEBLUR_UNROLL
    for (int i = 0; i < 4; ++i) {
      DEBLUR_UNROLL
      for (int j = 0; j < 8; ++j) sum_[i][j] = 0.0f;
    }
  }
  DEBLUR_FN void add(const ProductTile<T>& tile) {
    constexpr int pitch = kProductPitch<T>;
    DEBLUR_UNROLL
    for (int k = 0; k < kDepth; k += 4) {
      Four<float> left[4];
      DEBLUR_UNROLL
      for (int i = 0; i < 4; ++i) left[i] = load_four(tile.in.left + (row_ + i) * pitch + k);
      DEBLUR_UNROLL
      for (int j = 0; j < 8; ++j) {
        const Four<float> right = load_four(tile.in.right + (column_ + 16 * j) * pitch + k);
        DEBLUR_UNROLL
        for (int i = 0; i < 4; ++i) {
          DEBLUR_UNROLL
          for (int l = 0; l < 4; ++l)
            sum_[i][j] = fmaf(left[i].item[l], right.item[l], sum_[i][j]);
        }
      }
    }
  }
  DEBLUR_FN void store(float* out) const {
    DEBLUR_UNROLL
    for (int i = 0; i < 4; ++i) {
      DEBLUR_UNROLL
      for (int j = 0; j < 8; ++j) out[(row_ + i) * kOutPitch + column_ + 16 * j] = sum_[i][j];
    }
  }

 private:
  int row_, column_;
  float sum_[4][8];
};

#if defined(__CUDA_ARCH__) || defined(DEBLUR_EMULATION)  // nvcc's host pass has no tensor cores

// What one warp holds of it: 32 x 32, in fragments of 16 x 16.
template <typename T, typename Native>
class TensorSums {
 public:
  DEBLUR_DEVICE explicit TensorSums(int thread)
      : row_(thread / 32 / 4 * 32), column_(thread / 32 % 4 * 32) {
    for (auto& row : sum_)
      for (auto& sum : row) nvcuda::wmma::fill_fragment(sum, 0.0f);
  }
  DEBLUR_DEVICE void add(const ProductTile<T>& tile) {
    using namespace nvcuda;
    constexpr int pitch = kProductPitch<T>;
    DEBLUR_UNROLL
    for (int k = 0; k < kDepth; k += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, Native, wmma::row_major> left[2];
      wmma::fragment<wmma::matrix_b, 16, 16, 16, Native, wmma::col_major> right[2];
      DEBLUR_UNROLL
      for (int i = 0; i < 2; ++i) {
        const T *a = tile.in.left + (row_ + 16 * i) * pitch + k,
                *b = tile.in.right + (column_ + 16 * i) * pitch + k;
        wmma::load_matrix_sync(left[i], reinterpret_cast<const Native*>(a), pitch);
        wmma::load_matrix_sync(right[i], reinterpret_cast<const Native*>(b), pitch);
      }
      DEBLUR_UNROLL
      for (int i = 0; i < 2; ++i) {
        DEBLUR_UNROLL
        for (int j = 0; j < 2; ++j) wmma::mma_sync(sum_[i][j], left[i], right[j], sum_[i][j]);
      }
    }
  }
  DEBLUR_DEVICE void store(float* out) const {
    DEBLUR_UNROLL
    for (int i = 0; i < 2; ++i) {
      DEBLUR_UNROLL
      for (int j = 0; j < 2; ++j)
        nvcuda::wmma::store_matrix_sync(out + (row_ + 16 * i) * kOutPitch + column_ + 16 * j,
                                        sum_[i][j], kOutPitch, nvcuda::wmma::mem_row_major);
    }
  }

 private:
  int row_, column_;
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sum_[2][2];
};

template <>
class Sums<Half> : public TensorSums<Half, NativeHalf> {
  using TensorSums::TensorSums;
};
template <>
class Sums<Bfloat> : public TensorSums<Bfloat, NativeBfloat> {
  using TensorSums::TensorSums;
};

#endif

// Rows [row, row + kRows) times columns [column, column + kColumns); all threads of the block.
template <typename T, typename Problem, typename Block>
DEBLUR_FN void product_tile(const Problem& problem, Block& block, ProductTile<T>& tile,
                            int64_t row, int64_t column) {
  constexpr int kRuns = kDepth / kRun, kTimes = kColumns * kRuns / kProductThreads;
  static_assert(kRows * kRuns == kProductThreads && kColumns * kRuns % kProductThreads == 0, "");
  const int i = block.thread % kRows, at = block.thread / kRows * kRun;
  const int j = block.thread / kRuns, right_at = block.thread % kRuns * kRun;
  const typename Problem::Row from = problem.row(row + i);
  // What the next step needs is on its way while this one is computed.
  alignas(16) T left[kRun], right[kTimes][kRun];
  const auto fetch = [&](int64_t k) {
    problem.left(from, k + at, left);
    DEBLUR_UNROLL
    for (int time = 0; time < kTimes; ++time)
      problem.right(column + j + time * kColumns / kTimes, k + right_at, right[time]);
  };
  Sums<T> sums(block.thread);
  fetch(0);
  for (int64_t k = 0; k < problem.depth(); k += kDepth) {
    DEBLUR_UNROLL
    for (int four = 0; four < kRun; four += 4) {
      copy_four(tile.in.left + i * kProductPitch<T> + at + four, left + four);
      DEBLUR_UNROLL
      for (int time = 0; time < kTimes; ++time) {
        T* to = tile.in.right + (j + time * kColumns / kTimes) * kProductPitch<T> + right_at;
        copy_four(to + four, right[time] + four);
      }
    }
    block.sync();
    if (k + kDepth < problem.depth()) fetch(k + kDepth);
    sums.add(tile);
    block.sync();
  }
  sums.store(tile.out);
  block.sync();
  problem.finish(block.thread, row, column, tile.out);
  block.sync();
}

}  // namespace deblur
