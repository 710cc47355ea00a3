// The part of CUDA's nvcuda::wmma that common/gemm.cuh uses, on the processor, for 16 x 16 x 16
// alone. The first lane of a warp does the work of all; its order against barriers is that of the
// device. What the device demands of addresses and pitches (CUDA C++ Programming Guide, warp matrix
// functions) is checked here, because the device itself does not report it.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "../common/number.cuh"

namespace nvcuda {
namespace wmma {

inline int running_thread = 0;  // of the block, set by launch.h

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int M, int N, int K, typename T, typename Layout = void>
struct fragment {
  static_assert(M == 16 && N == 16 && K == 16, "another shape");
  float item[16][16];  // row and column of the matrix, whatever the layout in memory
};

inline bool first_lane() { return running_thread % 32 == 0; }

template <typename T>
void check(const T* at, unsigned pitch) {
  if (reinterpret_cast<uintptr_t>(at) % 32 == 0 && pitch * sizeof(T) % 16 == 0) return;
  fprintf(stderr, "wmma: address or pitch of a matrix not aligned\n");
  abort();
}

template <typename Use, typename T>
void fill_fragment(fragment<Use, 16, 16, 16, T>& to, float value) {
  if (!first_lane()) return;
  for (auto& row : to.item)
    for (float& item : row) item = value;
}

template <typename T>
void load_matrix_sync(fragment<matrix_a, 16, 16, 16, T, row_major>& to, const T* from,
                      unsigned pitch) {
  check(from, pitch);
  if (!first_lane()) return;
  for (int i = 0; i < 16; ++i)
    for (int k = 0; k < 16; ++k) to.item[i][k] = deblur::to_float(from[i * pitch + k]);
}
template <typename T>
void load_matrix_sync(fragment<matrix_b, 16, 16, 16, T, col_major>& to, const T* from,
                      unsigned pitch) {
  check(from, pitch);
  if (!first_lane()) return;
  for (int j = 0; j < 16; ++j)
    for (int k = 0; k < 16; ++k) to.item[k][j] = deblur::to_float(from[j * pitch + k]);
}

template <typename T>
void mma_sync(fragment<accumulator, 16, 16, 16, float>& to,
              const fragment<matrix_a, 16, 16, 16, T, row_major>& left,
              const fragment<matrix_b, 16, 16, 16, T, col_major>& right,
              const fragment<accumulator, 16, 16, 16, float>& sum) {
  if (!first_lane()) return;
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) {
      float total = sum.item[i][j];
      for (int k = 0; k < 16; ++k) total = fmaf(left.item[i][k], right.item[k][j], total);
      to.item[i][j] = total;
    }
  }
}

inline void store_matrix_sync(float* to, const fragment<accumulator, 16, 16, 16, float>& from,
                              unsigned pitch, layout_t layout) {
  check(to, pitch);
  if (layout != mem_row_major) abort();
  if (!first_lane()) return;
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) to[i * pitch + j] = from.item[i][j];
}

}  // namespace wmma
}  // namespace nvcuda
