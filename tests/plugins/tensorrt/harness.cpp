// Calls the plugins of a library as TensorRT does, without TensorRT: plain C functions for ctypes.
// Tensors are described by rows of 8 sizes; `counts` are their numbers of axes, 0 for an input that
// is absent; `types` are numbers of nvinfer1::DataType.
#include <dlfcn.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <NvInferRuntime.h>

using namespace nvinfer1;

namespace {

std::string said;  // since the last harness_log

struct Log final : ILogger, ILoggerFinder {
  void log(Severity, const char* message) noexcept override { said += message + std::string("\n"); }
  ILogger* findLogger() override { return this; }
} logger;

// A size that is known (a constant) or not yet; products and quotients keep that.
struct Size final : IDimensionExpr {
  struct Implementation final : apiv::VDimensionExpr {
    bool isConstant() const override { return constant; }
    int64_t getConstantValue() const override { return value; }
    bool isSizeTensor() const override { return false; }
    int64_t value = 0;
    bool constant = false;
  };
  Size(int64_t value, bool constant) {
    implementation.value = value;
    implementation.constant = constant;
    mImpl = &implementation;
  }
  Implementation implementation;
};

struct Builder final : IExprBuilder {
  struct Implementation final : apiv::VExprBuilder {
    const IDimensionExpr* make(int64_t value, bool constant) {
      sizes.push_back(std::make_unique<Size>(value, constant));
      return sizes.back().get();
    }
    const IDimensionExpr* constant(int64_t value) override { return make(value, true); }
    const IDimensionExpr* operation(DimensionOperation operation, const IDimensionExpr& first,
                                    const IDimensionExpr& second) override {
      const auto& a = static_cast<const Size&>(first).implementation;
      const auto& b = static_cast<const Size&>(second).implementation;
      const bool product = operation == DimensionOperation::kPROD;
      return make(product ? a.value * b.value : a.value / b.value, a.constant && b.constant);
    }
    const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                            const IDimensionExpr&) override {
      return nullptr;
    }
    std::vector<std::unique_ptr<Size>> sizes;
  };
  Builder() { mImpl = &implementation; }
  Implementation implementation;
};

IPluginCreatorInterface* const* creators = nullptr;
int32_t creator_count = 0;

IPluginCreatorV3One& creator(int32_t i) { return static_cast<IPluginCreatorV3One&>(*creators[i]); }

IPluginV3& of(void* plugin) { return *static_cast<IPluginV3*>(plugin); }
IPluginV3OneCore& core(void* plugin) {
  return static_cast<IPluginV3OneCore&>(
      *of(plugin).getCapabilityInterface(PluginCapabilityType::kCORE));
}
IPluginV3OneBuild& build(void* plugin) {
  return static_cast<IPluginV3OneBuild&>(
      *of(plugin).getCapabilityInterface(PluginCapabilityType::kBUILD));
}
IPluginV3OneRuntime& runtime(void* plugin) {
  return static_cast<IPluginV3OneRuntime&>(
      *of(plugin).getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

Dims dims_of(int32_t count, const int64_t* sizes) {
  Dims dims{count, {}};
  for (int32_t axis = 0; axis < count; ++axis) dims.d[axis] = sizes[axis];
  return dims;
}

std::vector<PluginTensorDesc> described(int32_t tensors, const int32_t* counts,
                                        const int64_t* sizes, const int32_t* types) {
  std::vector<PluginTensorDesc> result(static_cast<size_t>(tensors));
  for (int32_t i = 0; i < tensors; ++i) {
    auto& tensor = result[static_cast<size_t>(i)];
    tensor.dims = dims_of(counts[i], sizes + 8 * i);
    tensor.type = static_cast<DataType>(types[i]);
    tensor.format = TensorFormat::kLINEAR;
    tensor.scale = 1;
  }
  return result;
}

// Sizes of the profile's largest shapes, without the smaller ones.
std::vector<DynamicPluginTensorDesc> dynamic(const std::vector<PluginTensorDesc>& tensors) {
  std::vector<DynamicPluginTensorDesc> result;
  for (const auto& tensor : tensors) {
    result.push_back({tensor, tensor.dims, tensor.dims, tensor.dims});
  }
  return result;
}

}  // namespace

extern "C" {

// The number of creators; -1 where the library does not load.
int32_t harness_open(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    said += dlerror() + std::string("\n");
    return -1;
  }
  using Finder = void (*)(ILoggerFinder*);
  using Creators = IPluginCreatorInterface* const* (*)(int32_t&);
  reinterpret_cast<Finder>(dlsym(library, "setLoggerFinder"))(&logger);
  creators = reinterpret_cast<Creators>(dlsym(library, "getCreators"))(creator_count);
  return creator_count;
}

// What the plugins have said since the last call.
const char* harness_log() {
  static std::string last;
  last.swap(said);
  said.clear();
  return last.c_str();
}

const char* harness_op(int32_t i) { return creator(i).getPluginName(); }
const char* harness_namespace(int32_t i) { return creator(i).getPluginNamespace(); }
const char* harness_kind(int32_t i) { return creator(i).getInterfaceInfo().kind; }
// The name of an attribute, NULL past the last one.
const char* harness_attribute(int32_t i, int32_t attribute) {
  const auto* fields = creator(i).getFieldNames();
  return attribute < fields->nbFields ? fields->fields[attribute].name : nullptr;
}

void* harness_create(int32_t i, int32_t count, const char* const* names, const int32_t* values) {
  std::vector<PluginField> fields;
  for (int32_t k = 0; k < count; ++k) {
    fields.emplace_back(names[k], values + k, PluginFieldType::kINT32, 1);
  }
  const PluginFieldCollection collection{count, fields.data()};
  return creator(i).createPlugin("layer", &collection, TensorRTPhase::kBUILD);
}

// What a serialized engine makes of a plugin: a new one of the fields that it stores.
void* harness_restored(int32_t i, void* plugin) {
  return creator(i).createPlugin("layer", runtime(plugin).getFieldsToSerialize(),
                                 TensorRTPhase::kRUNTIME);
}

int32_t harness_describes_itself(int32_t i, void* plugin) {
  const auto same = [](const char* a, const char* b) { return std::string(a) == b; };
  return same(core(plugin).getPluginName(), creator(i).getPluginName()) &&
         same(core(plugin).getPluginNamespace(), creator(i).getPluginNamespace()) &&
         same(core(plugin).getPluginVersion(), creator(i).getPluginVersion()) &&
         build(plugin).getNbOutputs() == 1;
}

// `known`: whether a size is a constant. Writes the output's sizes and whether they are constants;
// returns their number, -1 for an error.
int32_t harness_output_shape(void* plugin, int32_t inputs, const int32_t* counts,
                             const int64_t* sizes, const int32_t* known, int64_t* out,
                             int32_t* out_known) {
  Builder builder;
  std::vector<DimsExprs> given(static_cast<size_t>(inputs));
  for (int32_t i = 0; i < inputs; ++i) {
    auto& input = given[static_cast<size_t>(i)];
    input.nbDims = counts[i];
    for (int32_t axis = 0; axis < counts[i]; ++axis) {
      const int32_t at = 8 * i + axis;
      input.d[axis] = builder.implementation.make(sizes[at], known[at] != 0);
    }
  }
  DimsExprs output{};
  if (build(plugin).getOutputShapes(given.data(), inputs, nullptr, 0, &output, 1, builder) != 0) {
    return -1;
  }
  for (int32_t axis = 0; axis < output.nbDims; ++axis) {
    const auto& size = static_cast<const Size&>(*output.d[axis]).implementation;
    out[axis] = size.value;
    out_known[axis] = size.constant;
  }
  return output.nbDims;
}

int32_t harness_output_type(void* plugin, int32_t inputs, const int32_t* types) {
  std::vector<DataType> given;
  for (int32_t i = 0; i < inputs; ++i) given.push_back(static_cast<DataType>(types[i]));
  DataType output{};
  if (build(plugin).getOutputDataTypes(&output, 1, given.data(), inputs) != 0) return -1;
  return static_cast<int32_t>(output);
}

// Whether tensor `place` may be as it is described, while those behind it are not described yet;
// the output is the last of `tensors`.
int32_t harness_supports(void* plugin, int32_t place, int32_t tensors, const int32_t* counts,
                         const int64_t* sizes, const int32_t* types, int32_t format) {
  auto all = dynamic(described(tensors, counts, sizes, types));
  all[static_cast<size_t>(place)].desc.format = static_cast<TensorFormat>(format);
  for (size_t later = static_cast<size_t>(place) + 1; later < all.size(); ++later) {
    all[later].desc = {Dims{-1, {}}, DataType::kBOOL, TensorFormat::kHWC, 0};
  }
  return build(plugin).supportsFormatCombination(place, all.data(), tensors - 1, 1);
}

int64_t harness_workspace(void* plugin, int32_t inputs, const int32_t* counts, const int64_t* sizes,
                          const int32_t* types) {
  const auto all = dynamic(described(inputs, counts, sizes, types));
  if (build(plugin).configurePlugin(all.data(), inputs, nullptr, 1) != 0) return -1;
  return static_cast<int64_t>(build(plugin).getWorkspaceSize(all.data(), inputs, nullptr, 1));
}

// As an execution context does it; returns what enqueue or an earlier step returns.
int32_t harness_enqueue(void* plugin, int32_t inputs, const int32_t* counts, const int64_t* sizes,
                        const int32_t* types, const void* const* data, int32_t out_count,
                        const int64_t* out_sizes, int32_t out_type, void* out, void* workspace,
                        void* stream) {
  std::unique_ptr<IPluginV3> attached(runtime(plugin).attachToContext(nullptr));
  if (attached == nullptr) return -1;
  const auto given = described(inputs, counts, sizes, types);
  const auto output = described(1, &out_count, out_sizes, &out_type);
  auto& context = runtime(attached.get());
  const int32_t code = context.onShapeChange(given.data(), inputs, output.data(), 1);
  if (code != 0) return code;
  return context.enqueue(given.data(), output.data(), data, &out, workspace,
                         static_cast<cudaStream_t>(stream));
}

void harness_destroy(void* plugin) { delete static_cast<IPluginV3*>(plugin); }

}  // extern "C"
