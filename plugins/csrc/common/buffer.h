// Scratch memory of a call: uninitialised, at cache-line boundaries.
#pragma once

#include <stdint.h>
#include <stdlib.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace deblur {

// Asks for large pages, which spares a large result thousands of page faults; only a hint.
static inline void expect_large(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = 2 << 20;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

class Floats {
 public:
  explicit Floats(int64_t count) {
    constexpr int64_t kLine = 64, kMost = INT64_MAX / 8;
    if (count < 0 || count > kMost) return;
    const int64_t bytes = count * static_cast<int64_t>(sizeof(float)) + kLine;
    memory_ = malloc(static_cast<size_t>(bytes));
    if (memory_ == nullptr) return;
    expect_large(memory_, bytes);
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory_);
    data_ = reinterpret_cast<float*>((address + kLine - 1) / kLine * kLine);
  }
  ~Floats() { free(memory_); }
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;

  // False when there was not enough memory.
  explicit operator bool() const { return data_ != nullptr; }
  float* data() const { return data_; }

 private:
  void* memory_ = nullptr;
  float* data_ = nullptr;
};

}  // namespace deblur
