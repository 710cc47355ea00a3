// Sizes of tensors, checked.
#pragma once

#include <stdint.h>

#include <initializer_list>

namespace deblur {

// The number of elements, or -1 if an extent is negative or their bytes do not fit 48 bits.
static inline int64_t product(std::initializer_list<int64_t> extents) {
  constexpr int64_t kMost = INT64_C(1) << 46;
  int64_t count = 1;
  bool empty = false;
  for (int64_t extent : extents) {
    if (extent < 0 || extent > kMost) return -1;
    if (extent == 0) empty = true;
    else if (count > kMost / extent) return -1;
    else count *= extent;
  }
  return empty ? 0 : count;
}

}  // namespace deblur
