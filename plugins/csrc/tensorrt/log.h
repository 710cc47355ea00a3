// Errors are written as one line to TensorRT's logger, or to stderr where it has none.
#pragma once

#include <exception>

#include <NvInferRuntime.h>

namespace deblur_tensorrt {

// Asked for the logger whenever there is something to say; may be NULL.
void set_logger_finder(nvinfer1::ILoggerFinder* finder);

void log_error(const char* message) noexcept;

// What `work` returns, or `failure` where it throws: no exception may reach TensorRT.
template <typename Result, typename Work>
Result guarded(Result failure, Work work) noexcept {
  try {
    return work();
  } catch (const std::exception& error) {
    log_error(error.what());
  } catch (...) {
    log_error("deblur plugins: unknown exception");
  }
  return failure;
}

}  // namespace deblur_tensorrt
