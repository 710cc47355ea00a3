// One tile of a matrix product C = A B by one block of threads: float32 by the ordinary units, half
// and bfloat16 by the tensor cores, with float32 accumulators for every type. A is M x K, B is K x
// N.
//
// A Problem says what is multiplied; A and B need not exist in memory.
//   depth()                 K
//   row(i) -> Row           whatever load_a needs to know of row i of A
//   load_a(row, k, T* to)   kLoadK neighbouring values of a row of A from k on, k a multiple of
//   kLoadK load_b(j, k, T* to)     the same of column j of B epilogue(thread, row, column, sums)
//                           takes the result [kTileM][kOutPitch] of the tile from (row, column) on
// `to` is aligned to 16 bytes. load_a and load_b write zeros where there is no row, column or k.
#pragma once

#include "launch.cuh"

#if defined(DEBLUR_EMULATION)
#include "../emulation/wmma.h"
#else
#include <mma.h>
#endif

namespace deblur {

// The tile: 64 rows of A, 128 columns of B, and 32 k at a time.
constexpr int kTileM = 64, kTileN = 128, kTileK = 32;
constexpr int kGemmThreads = 256;
constexpr int kOutPitch = kTileN + 4;  // keeps the rows of the result aligned to 16 bytes
constexpr int kLoadK = 8;              // neighbouring k that a thread loads at once

// Rows of the tiles in shared memory are 16 bytes longer than kTileK values: still aligned for
// 128-bit loads and for wmma, and eight rows begin in different banks.
template <typename T>
constexpr int kGemmPitch = kTileK + 16 / static_cast<int>(sizeof(T));

// The shared memory of a block: the inputs of a step, and, when all steps are done, the result.
template <typename T>
union GemmTile {
  struct {
    alignas(32) T a[kTileM * kGemmPitch<T>];
    alignas(32) T b[kTileN * kGemmPitch<T>];
  } in;
  alignas(32) float out[kTileM * kOutPitch];
};

// What one thread holds of the result, in float32: four rows and every 16th column. Neighbouring
// threads have neighbouring columns, whose values of B come from different banks.
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
  // Adds the products of one step.
  DEBLUR_FN void add(const GemmTile<T>& tile) {
    constexpr int pitch = kGemmPitch<T>;
    DEBLUR_UNROLL
    for (int k = 0; k < kTileK; k += 4) {
      Vec4<float> a[4];
      DEBLUR_UNROLL
      for (int i = 0; i < 4; ++i) a[i] = load4(tile.in.a + (row_ + i) * pitch + k);
      DEBLUR_UNROLL
      for (int j = 0; j < 8; ++j) {
        const Vec4<float> b = load4(tile.in.b + (column_ + 16 * j) * pitch + k);
        DEBLUR_UNROLL
        for (int i = 0; i < 4; ++i) {
          DEBLUR_UNROLL
          for (int l = 0; l < 4; ++l) sum_[i][j] = fmaf(a[i].item[l], b.item[l], sum_[i][j]);
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

// nvcc compiles every kernel for the host as well, where there are no tensor cores.
#if defined(__CUDA_ARCH__) || defined(DEBLUR_EMULATION)

// What one warp holds of the result on the tensor cores: 32 x 32, in fragments of 16 x 16. The
// eight warps of a block are two rows of four. A is row-major; B is stored column by column, which
// is what wmma calls col_major.
template <typename T, typename Native>
class TensorCoreSums {
 public:
  DEBLUR_DEVICE explicit TensorCoreSums(int thread)
      : row_(thread / 32 / 4 * 32), column_(thread / 32 % 4 * 32) {
    for (auto& row : sum_)
      for (auto& sum : row) nvcuda::wmma::fill_fragment(sum, 0.0f);
  }
  DEBLUR_DEVICE void add(const GemmTile<T>& tile) {
    using namespace nvcuda;
    constexpr int pitch = kGemmPitch<T>;
    DEBLUR_UNROLL
    for (int k = 0; k < kTileK; k += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, Native, wmma::row_major> a_fragment[2];
      wmma::fragment<wmma::matrix_b, 16, 16, 16, Native, wmma::col_major> b_fragment[2];
      // Two fragments of A and two of B make four products.
      DEBLUR_UNROLL
      for (int i = 0; i < 2; ++i) {
        const T *a = tile.in.a + (row_ + 16 * i) * pitch + k,
                *b = tile.in.b + (column_ + 16 * i) * pitch + k;
        wmma::load_matrix_sync(a_fragment[i], reinterpret_cast<const Native*>(a), pitch);
        wmma::load_matrix_sync(b_fragment[i], reinterpret_cast<const Native*>(b), pitch);
      }
      DEBLUR_UNROLL
      for (int i = 0; i < 2; ++i) {
        DEBLUR_UNROLL
        for (int j = 0; j < 2; ++j)
          wmma::mma_sync(sum_[i][j], a_fragment[i], b_fragment[j], sum_[i][j]);
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
class Sums<Half> : public TensorCoreSums<Half, NativeHalf> {
  using TensorCoreSums::TensorCoreSums;
};
template <>
class Sums<Bfloat> : public TensorCoreSums<Bfloat, NativeBfloat> {
  using TensorCoreSums::TensorCoreSums;
};

#endif

// Computes rows [row, row + kTileM) times columns [column, column + kTileN). All threads of the
// block call it together.
template <typename T, typename Problem, typename Block>
DEBLUR_FN void gemm_tile(const Problem& problem, Block& block, GemmTile<T>& tile, int64_t row,
                         int64_t column) {
  constexpr int kLoads = kTileK / kLoadK, kRepeats = kTileN * kLoads / kGemmThreads;
  static_assert(kTileM * kLoads == kGemmThreads && kTileN * kLoads % kGemmThreads == 0, "");
  // Every thread loads kLoadK values of one row of A, and of several columns of B.
  const int i = block.thread % kTileM, a_at = block.thread / kTileM * kLoadK;
  const int j = block.thread / kLoads, b_at = block.thread % kLoads * kLoadK;
  const typename Problem::Row from = problem.row(row + i);
  // The loads of the next step are issued before this one is computed, into registers, so that the
  // latency of global memory overlaps with the products (software pipelining).
  alignas(16) T a[kLoadK], b[kRepeats][kLoadK];
  const auto fetch = [&](int64_t k) {
    problem.load_a(from, k + a_at, a);
    DEBLUR_UNROLL
    for (int time = 0; time < kRepeats; ++time)
      problem.load_b(column + j + time * kTileN / kRepeats, k + b_at, b[time]);
  };
  Sums<T> sums(block.thread);
  fetch(0);
  for (int64_t k = 0; k < problem.depth(); k += kTileK) {
    DEBLUR_UNROLL
    for (int four = 0; four < kLoadK; four += 4) {
      copy4(tile.in.a + i * kGemmPitch<T> + a_at + four, a + four);
      DEBLUR_UNROLL
      for (int time = 0; time < kRepeats; ++time) {
        T* to = tile.in.b + (j + time * kTileN / kRepeats) * kGemmPitch<T> + b_at;
        copy4(to + four, b[time] + four);
      }
    }
    block.sync();  // the tile is complete
    if (k + kTileK < problem.depth()) fetch(k + kTileK);
    sums.add(tile);
    block.sync();  // nobody needs the tile any more: the next step may overwrite it
  }
  // The result goes through shared memory, in place of the inputs, so that the epilogue can write
  // it in whatever order is coalesced. The last barrier lets the caller go on with another tile.
  sums.store(tile.out);
  block.sync();
  problem.epilogue(block.thread, row, column, tile.out);
  block.sync();
}

}  // namespace deblur
