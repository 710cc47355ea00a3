#include "parallel.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace deblur {

struct Team::Workers {
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

  // `seen` is the last round that is none of this thread's business.
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

  // As many as the system grants; the work is done even by the caller alone.
  void start(int64_t count) {
    try {
      threads.reserve(static_cast<size_t>(count));
      while (static_cast<int64_t>(threads.size()) < count)
        threads.emplace_back([this, now = round] { serve(now); });
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
  }

  ~Workers() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      stop = true;
    }
    wake.notify_all();
    for (std::thread& thread : threads) thread.join();
  }
};

Team::Team(const deblur_threads* threads) : size_(1) {
  if (threads == nullptr || threads->count < 2) return;
  constexpr int64_t kMost = 1024;
  size_ = threads->count < kMost ? threads->count : kMost;
  if (threads->run != nullptr) outside_ = threads;
}

Team::~Team() { delete workers_; }

void Team::run(int64_t tasks, Task task, void* data) {
  if (outside_ != nullptr && tasks > 1) {
    outside_->run(outside_->runtime, tasks, task, data);
    return;
  }
  if (size_ > 1 && tasks > 1 && workers_ == nullptr) workers_ = new (std::nothrow) Workers;
  if (size_ == 1 || tasks <= 1 || workers_ == nullptr) {
    for (int64_t i = 0; i < tasks; ++i) task(data, i);
    return;
  }
  Workers& team = *workers_;
  const int64_t useful = (tasks < size_ ? tasks : size_) - 1;
  if (static_cast<int64_t>(team.threads.size()) < useful) team.start(useful);
  {
    std::lock_guard<std::mutex> lock(team.mutex);
    team.tasks = tasks;
    team.task = task;
    team.data = data;
    team.next.store(0, std::memory_order_relaxed);
    team.busy = static_cast<int64_t>(team.threads.size());
    ++team.round;
  }
  team.wake.notify_all();
  team.take_tasks();
  std::unique_lock<std::mutex> lock(team.mutex);
  team.done.wait(lock, [&] { return team.busy == 0; });
}

}  // namespace deblur
