// The CUDA device on the processor, in place of the one in common/launch.cuh. Blocks run one after
// the other; the threads of a block are fibers, each of which runs until it waits for the others.
//
// A missing barrier shows: shared memory is filled with NaN before a block starts, so that a kernel
// which reads what was not written yet gets NaN. deblur_emulate_backwards lets the last thread of a
// block run first, which finds the cases that the usual order hides.
#pragma once

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <memory>
#include <vector>

#include "../deblur_cuda.h"
#include "wmma.h"

extern "C" {
inline DEBLUR_CUDA_API int32_t deblur_emulate_backwards = 0;
}

namespace deblur {

class Block {
 public:
  int64_t index = 0;
  int thread, threads;
  void sync() {
#if !defined(DEBLUR_NO_BARRIERS)  // with it, a test sees that what depends on them is wrong
    wait();
#endif
  }
  void add(int* to, int value) const { *to += value; }

 private:
  template <typename Kernel>
  friend class Grid;
  Block(int thread, int threads, jmp_buf* home) : thread(thread), threads(threads), home_(home) {}
  void wait() {
    if (_setjmp(here_) == 0) _longjmp(*home_, 1);
  }

  // Used once, to start on a stack of its own: later switches are jumps, which cost a tenth of
  // swapping contexts.
  ucontext_t start_;
  jmp_buf here_, *home_;
  bool started_ = false, done_ = false;
};

// The blocks of one launch: one set of fibers and one shared memory, which all blocks use in turn.
template <typename Kernel>
class Grid {
 public:
  Grid(const Kernel& kernel, int threads) : kernel_(kernel), stacks_(threads * kStack) {
    for (int i = 0; i < threads; ++i) threads_.push_back(Block(i, threads, &home_));
    for (int i = 0; i < threads; ++i) {
      ucontext_t& start = threads_[i].start_;
      getcontext(&start);
      start.uc_stack.ss_sp = stacks_.data() + i * kStack;
      start.uc_stack.ss_size = kStack;
      start.uc_link = nullptr;
      const uintptr_t self = reinterpret_cast<uintptr_t>(this);
      makecontext(&start, reinterpret_cast<void (*)()>(&Grid::enter), 3,
                  static_cast<unsigned>(self >> 32), static_cast<unsigned>(self), i);
    }
  }

  // Runs one block: all threads to the next barrier, again and again, until they are done. It is an
  // error if some threads are done while others wait at a barrier.
  void run(int64_t index) {
    memset(static_cast<void*>(&shared_), 0xFF, sizeof shared_);
    const int count = static_cast<int>(threads_.size());
    for (Block& block : threads_) {
      block.index = index;
      block.done_ = false;
    }
    for (int done = 0; done < count;) {
      for (int i = 0; i < count; ++i) {
        Block& block = threads_[deblur_emulate_backwards ? count - 1 - i : i];
        resume(block);
        done += block.done_;
      }
      if (done != 0 && done != count) {
        fprintf(stderr, "block %lld: %d of %d threads wait for the others\n",
                static_cast<long long>(index), count - done, count);
        abort();
      }
    }
  }

 private:
  static constexpr size_t kStack = 32768;

  // A function of its own, because the jump back leaves the local variables of the function it
  // returns to undefined.
  __attribute__((noinline)) void resume(Block& block) {
    if (_setjmp(home_) != 0) return;
    nvcuda::wmma::running_thread = block.thread;
    if (block.started_) _longjmp(block.here_, 1);
    block.started_ = true;
    setcontext(&block.start_);
  }

  static void enter(unsigned high, unsigned low, int thread) {
    Grid* grid = reinterpret_cast<Grid*>(static_cast<uintptr_t>(high) << 32 | low);
    Block& block = grid->threads_[thread];
    for (;;) {
      grid->kernel_(block, grid->shared_);
      block.done_ = true;
      block.wait();
    }
  }

  const Kernel& kernel_;
  std::vector<char> stacks_;
  std::vector<Block> threads_;
  jmp_buf home_;
  typename Kernel::Shared shared_;
};

// Runs a launch at once; the stream has no meaning.
class Queue {
 public:
  explicit Queue(void*) {}

  template <typename Kernel>
  void launch(const Kernel& kernel, int64_t blocks, int threads = Kernel::kThreads) {
    static_assert(sizeof(typename Kernel::Shared) <= 48 * 1024, "static shared memory");
    if (threads < 1 || threads > Kernel::kThreads) abort();
    const auto grid = std::make_unique<Grid<Kernel>>(kernel, threads);
    for (int64_t i = 0; i < blocks; ++i) grid->run(i);
  }
  void copy(void* to, const void* from, int64_t bytes) {
    if (bytes > 0) memcpy(to, from, static_cast<size_t>(bytes));
  }
  int32_t code() const { return DEBLUR_CUDA_OK; }
};

}  // namespace deblur
