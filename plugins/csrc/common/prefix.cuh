// Prefix sums over the threads of a block.
#pragma once

#include "number.cuh"

namespace deblur {

// Sum of the values of the threads before this one; `total` that of all. room [2 * threads].
template <typename Block>
DEBLUR_FN int sum_before(Block& block, int* room, int value, int* total) {
  const int last = block.threads - 1;
  int *from = room, *to = room + block.threads;
  from[block.thread] = value;
  for (int step = 1; step < block.threads; step *= 2) {
    block.sync();
    const int before = block.thread >= step ? from[block.thread - step] : 0;
    to[block.thread] = from[block.thread] + before;
    int* old = from;
    from = to;
    to = old;
  }
  block.sync();
  *total = from[last];
  const int sum = from[block.thread] - value;
  block.sync();
  return sum;
}

}  // namespace deblur
