// Checked sizes of tensors.
#pragma once

#include <stdint.h>

#include <initializer_list>

namespace deblur {

// The number of elements of a tensor, or -1 if an extent is negative or the product is above 2^46,
// so that sizes in bytes and sums of several sizes cannot overflow.
static inline int64_t element_count(std::initializer_list<int64_t> extents) {
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
