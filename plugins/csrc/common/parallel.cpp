// The thread pool: tasks are numbers, which idle threads take from a shared counter.
#include "parallel.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace deblur {

struct ThreadPool::Workers {
  std::mutex mutex;
  std::condition_variable wake, done;
  std::vector<std::thread> threads;
  std::atomic<int64_t> next{0};
  int64_t tasks = 0, round = 0, busy = 0;
  Task task = nullptr;
  void* data = nullptr;
  bool stop = false;

  void take_tasks() {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) task(data, i);
  }

  // The loop of a thread: waits for the next round, takes tasks until none is left, says so. `seen`
  // is the last round in which this thread has no part.
  void serve(int64_t seen) {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return stop || round != seen; });
      if (stop) return;
      seen = round;
      lock.unlock();
      take_tasks();
      lock.lock();
      if (--busy == 0) done.notify_one();
    }
  }

  // Starts threads until there are `count`, or as many as the system grants: the caller takes tasks
  // too and would finish them alone.
  void start(int64_t count) {
    try {
      threads.reserve(static_cast<size_t>(count));
      while (static_cast<int64_t>(threads.size()) < count)
        threads.emplace_back([this, now = round] { serve(now); });
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
  }

  // Wakes all threads to end, and joins them.
  ~Workers() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      stop = true;
    }
    wake.notify_all();
    for (std::thread& thread : threads) thread.join();
  }
};

ThreadPool::ThreadPool(const deblur_threads* threads) : size_(1) {
  if (threads == nullptr || threads->count < 2) return;
  constexpr int64_t kMost = 1024;
  size_ = threads->count < kMost ? threads->count : kMost;
  if (threads->run != nullptr) runtime_ = threads;
}

ThreadPool::~ThreadPool() { delete workers_; }

void ThreadPool::run(int64_t tasks, Task task, void* data) {
  if (runtime_ != nullptr && tasks > 1) {
    runtime_->run(runtime_->runtime, tasks, task, data);
    return;
  }
  if (size_ > 1 && tasks > 1 && workers_ == nullptr) workers_ = new (std::nothrow) Workers;
  if (size_ == 1 || tasks <= 1 || workers_ == nullptr) {
    for (int64_t i = 0; i < tasks; ++i) task(data, i);
    return;
  }
  Workers& workers = *workers_;
  const int64_t useful = (tasks < size_ ? tasks : size_) - 1;
  if (static_cast<int64_t>(workers.threads.size()) < useful) workers.start(useful);
  // Announce a round, take part in it, then wait until every thread has noticed that no task is
  // left.
  {
    std::lock_guard<std::mutex> lock(workers.mutex);
    workers.tasks = tasks;
    workers.task = task;
    workers.data = data;
    workers.next.store(0, std::memory_order_relaxed);
    workers.busy = static_cast<int64_t>(workers.threads.size());
    ++workers.round;
  }
  workers.wake.notify_all();
  workers.take_tasks();
  std::unique_lock<std::mutex> lock(workers.mutex);
  workers.done.wait(lock, [&] { return workers.busy == 0; });
}

}  // namespace deblur
