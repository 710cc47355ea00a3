// The threads of OpenVINO: those of the TBB arena in which it evaluates a node. The kernels start
// no others, so that the number of threads that the user asked OpenVINO for holds here too.
#pragma once

#include <stdint.h>

#include <tbb/parallel_for.h>
#include <tbb/partitioner.h>
#include <tbb/task_arena.h>

#include "../deblur_cpu.h"

namespace deblur_openvino {

// body(i) for i < tasks.
template <class Body>
void parallel_for(int64_t tasks, const Body& body) {
  tbb::parallel_for(int64_t{0}, tasks, body, tbb::simple_partitioner());
}

inline deblur_threads runtime_threads() {
  const auto run = [](void*, int64_t tasks, void (*task)(void*, int64_t), void* data) {
    parallel_for(tasks, [=](int64_t index) { task(data, index); });
  };
  return {tbb::this_task_arena::max_concurrency(), run, nullptr};
}

}  // namespace deblur_openvino
