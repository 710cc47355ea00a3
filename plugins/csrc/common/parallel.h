// The threads of one call: its own, or those of the runtime that called.
#pragma once

#include <stdint.h>

#include "../deblur_cpu.h"

namespace deblur {

using Task = void (*)(void* data, int64_t index);

// A thread pool that lives as long as one call. Threads are started by the first `run` that needs
// them and joined by the destructor: nothing outlives the call, so that a process may fork or
// unload the library at any time.
class ThreadPool {
 public:
  explicit ThreadPool(const deblur_threads* threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // How many tasks can run at once.
  int64_t size() const { return size_; }

  // Calls task(data, i) for i < tasks and waits; idle threads take the next i. Not reentrant.
  void run(int64_t tasks, Task task, void* data);

 private:
  struct Workers;
  int64_t size_;
  const deblur_threads* runtime_ = nullptr;
  Workers* workers_ = nullptr;
};

// Calls body(i) for i < tasks. It has internal linkage, because every instruction set has its own.
template <typename Body>
static inline void parallel_for(ThreadPool& pool, int64_t tasks, const Body& body) {
  pool.run(
      tasks, [](void* data, int64_t index) { (*static_cast<const Body*>(data))(index); },
      const_cast<Body*>(&body));
}

}  // namespace deblur
