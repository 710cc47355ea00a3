// Where the log of log.h goes: to the logger that TensorRT names, or to stderr.
#include "log.h"

#include <atomic>
#include <cstdio>

namespace deblur_tensorrt {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) { logger_finder = finder; }

void log_error(const char* message) noexcept {
  nvinfer1::ILoggerFinder* finder = logger_finder;
  nvinfer1::ILogger* logger = finder == nullptr ? nullptr : finder->findLogger();
  if (logger == nullptr) {
    std::fprintf(stderr, "%s\n", message);
  } else {
    logger->log(nvinfer1::ILogger::Severity::kERROR, message);
  }
}

}  // namespace deblur_tensorrt
