// Scratch memory of a call: not initialised, aligned to cache lines.
#pragma once

#include <stdint.h>
#include <stdlib.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace deblur {

// Asks the system for large pages, which saves a large tensor thousands of page faults; only a
// hint.
static inline void advise_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = 2 << 20;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const uintptr_t last =
      (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

class FloatBuffer {
 public:
  // Memory for `count` floats. A count that is negative or too large is treated as out
  // of memory.
  explicit FloatBuffer(int64_t count) {
    constexpr int64_t kLine = 64, kMost = INT64_MAX / 8;
    if (count < 0 || count > kMost) return;
    const int64_t bytes = count * static_cast<int64_t>(sizeof(float)) + kLine;
    memory_ = malloc(static_cast<size_t>(bytes));
    if (memory_ == nullptr) return;
    advise_huge_pages(memory_, bytes);
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory_);
    data_ = reinterpret_cast<float*>((address + kLine - 1) / kLine * kLine);
  }
  ~FloatBuffer() { free(memory_); }
  FloatBuffer(const FloatBuffer&) = delete;
  FloatBuffer& operator=(const FloatBuffer&) = delete;

  // False when there was not enough memory.
  explicit operator bool() const { return data_ != nullptr; }
  float* data() const { return data_; }

 private:
  void* memory_ = nullptr;
  float* data_ = nullptr;
};

}  // namespace deblur
