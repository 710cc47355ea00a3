// Prefix sums over the threads of a block (Hillis and Steele: log2(threads) rounds, each thread
// adds the sum that ends `step` threads before it).
#pragma once

#include "number.cuh"

namespace deblur {

// Returns the sum of the values of the threads before this one, and the sum of all in `total`. All
// threads of the block call it together. scratch [2 * threads] of shared memory: a round reads one
// half and writes the other, so that it needs one barrier only.
template <typename Block>
DEBLUR_FN int sum_before(Block& block, int* scratch, int value, int* total) {
  const int last = block.threads - 1;
  int *from = scratch, *to = scratch + block.threads;
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
  // The last barrier lets the caller use `scratch` again.
  *total = from[last];
  const int sum = from[block.thread] - value;
  block.sync();
  return sum;
}

}  // namespace deblur
