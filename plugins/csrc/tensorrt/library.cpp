// How TensorRT finds the plugins.
//
// IPluginRegistry::loadLibrary (trtexec --dynamicPlugins, deblur-export trt) asks getCreators.
// Others merely load the library (trtexec --staticPlugins, polygraphy --plugins, Triton): for them
// it registers itself with the TensorRT that is loaded already, which is looked up so that the
// library is not linked to one.
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>

#include <cstring>
#endif

#include "log.h"
#include "plugin.h"

#if defined(_WIN32)
#define DEBLUR_EXPORT extern "C" __declspec(dllexport)
#else
#define DEBLUR_EXPORT extern "C" __attribute__((visibility("default")))
#endif

#define DEBLUR_TEXT_OF(value) #value
#define DEBLUR_TEXT(value) DEBLUR_TEXT_OF(value)

// plugins/libraries/tensorrt.py reads this text from the file, before the library is loaded.
DEBLUR_EXPORT const char deblur_plugins_made_for[] =
    "deblur plugins " DEBLUR_TEXT(DEBLUR_PLUGINS_VERSION) " for TensorRT " DEBLUR_TEXT(
        NV_TENSORRT_MAJOR) "." DEBLUR_TEXT(NV_TENSORRT_MINOR);

namespace deblur_tensorrt {
namespace {

using nvinfer1::IPluginCreatorInterface;
using nvinfer1::IPluginRegistry;

// One creator for each op. They live as long as the process, because registries keep pointers to
// them.
const std::vector<IPluginCreatorInterface*>& creators() {
  static const std::vector<IPluginCreatorInterface*> all = [] {
    std::vector<IPluginCreatorInterface*> made;
    for (const Op& op : ops()) made.push_back(new Creator(op));
    return made;
  }();
  return all;
}

IPluginRegistry* own_registry = nullptr;  // where the library registered itself

#if defined(__linux__)
template <typename Function>
Function* symbol(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

// Whether code of the library `file` is being executed.
bool called_by(const char* file) {
  void* frames[64];
  const int count = backtrace(frames, 64);
  for (int i = 0; i < count; ++i) {
    Dl_info info;
    if (dladdr(frames[i], &info) != 0 && std::strcmp(info.dli_fname, file) == 0) return true;
  }
  return false;
}

// The registry of a TensorRT of this release that is loaded, or NULL; also NULL while it is
// TensorRT that loads this library: it will ask for the creators, and may hold a lock until then.
IPluginRegistry* loaded_registry() {
  IPluginRegistry* registry = nullptr;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* found) {
        const char* slash = std::strrchr(info->dlpi_name, '/');
        const char* file = slash == nullptr ? info->dlpi_name : slash + 1;
        if (std::strncmp(file, "libnvinfer.so", 13) != 0 &&
            std::strncmp(file, "libnvinfer_lean.so", 18) != 0) {
          return 0;
        }
        void* library = dlopen(info->dlpi_name, RTLD_NOLOAD | RTLD_LAZY);
        if (library == nullptr) return 0;
        auto* major = symbol<int32_t()>(library, "getInferLibMajorVersion");
        auto* get = symbol<IPluginRegistry*()>(library, "getPluginRegistry");
        // The registry is called through the headers' table of functions.
        if (major != nullptr && get != nullptr && major() == NV_TENSORRT_MAJOR &&
            !called_by(info->dlpi_name)) {
          *static_cast<IPluginRegistry**>(found) = get();
        }
        dlclose(library);
        return *static_cast<IPluginRegistry**>(found) != nullptr ? 1 : 0;
      },
      &registry);
  return registry;
}

// Runs when the library is loaded.
__attribute__((constructor)) void register_self() {
  guarded(false, [] {
    own_registry = loaded_registry();
    if (own_registry == nullptr) return false;
    for (auto* creator : creators()) own_registry->registerCreator(*creator, kNamespace);
    return true;
  });
}
#endif

}  // namespace
}  // namespace deblur_tensorrt

DEBLUR_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  deblur_tensorrt::set_logger_finder(finder);
}

// The caller registers what it gets: the creators leave the registry that they registered with.
DEBLUR_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  using namespace deblur_tensorrt;
  if (own_registry != nullptr) {
    for (auto* creator : creators()) own_registry->deregisterCreator(*creator);
    own_registry = nullptr;
  }
  count = static_cast<int32_t>(creators().size());
  return creators().data();
}
