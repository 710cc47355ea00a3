// What TensorRT asks a plugin, answered from the table of ops.cpp.
#include "plugin.h"

#include <algorithm>
#include <utility>

#include "../deblur_cuda.h"
#include "log.h"

namespace deblur_tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;

constexpr int32_t kFailed = 1;

// Whether a tensor of this kind may have this type.
bool holds(Kind kind, DataType type) {
  switch (kind) {
    case Kind::kFloat:
      return type == DataType::kFLOAT;
    case Kind::kNumbers:
      return type == DataType::kINT64;
    case Kind::kOfOp:
      break;
  }
  return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

// The type that the kernels are told; of the first input, which has the type of the op if any has.
int32_t kernel_type(DataType type) {
  return type == DataType::kHALF ? DEBLUR_F16 : type == DataType::kBF16 ? DEBLUR_BF16 : DEBLUR_F32;
}

std::string text_of(const Dims& dims) {
  std::string text;
  for (int32_t axis = 0; axis < dims.nbDims; ++axis) {
    text += (axis == 0 ? "" : " ") + std::to_string(dims.d[axis]);
  }
  return text;
}

// Learns the letters of inputs whose sizes `dims(i)` says; negative ones are not known yet.
template <typename DimsOf>
Letters<Numbers> learn_numbers(const Op& op, const std::vector<int32_t>& values,
                               const Positions& positions, DimsOf dims) {
  Letters<Numbers> letters = letters_of(op, values, Numbers());
  learn(
      op, positions, letters, [&](int32_t i) { return dims(i).nbDims; },
      [&](int32_t i, int32_t axis) {
        const int64_t size = dims(i).d[axis];
        return size < 0 ? Numbers::Value() : Numbers::Value(size);
      },
      [&](int32_t i) { return text_of(dims(i)); });
  return letters;
}

bool is_empty(const Dims& dims) {
  return std::any_of(dims.d, dims.d + dims.nbDims, [](int64_t size) { return size == 0; });
}

}  // namespace

// The attributes are what is serialised, and what tells timings of the same op apart.
Plugin::Plugin(const Op& op, std::vector<int32_t> values) : op_(op), values_(std::move(values)) {
  for (size_t i = 0; i < values_.size(); ++i) {
    const char* name = op_.attributes[i].name;
    fields_.emplace_back(name, &values_[i], nvinfer1::PluginFieldType::kINT32, 1);
    timing_cache_id_ += std::string(name) + "=" + std::to_string(values_[i]) + ";";
  }
  collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
}

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(
    nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3* Plugin::clone() noexcept {
  return guarded<nvinfer1::IPluginV3*>(nullptr, [&] {
    auto* copy = new Plugin(op_, values_);
    copy->positions_ = positions_;
    return copy;
  });
}

int32_t Plugin::getOutputDataTypes(DataType* outputs, int32_t, const DataType* inputs,
                                   int32_t) const noexcept {
  const Kind kind = op_.output.kind;
  outputs[0] = kind == Kind::kOfOp    ? inputs[0]
               : kind == Kind::kFloat ? DataType::kFLOAT
                                      : DataType::kINT64;
  return 0;
}

int32_t Plugin::getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count,
                                const nvinfer1::DimsExprs*, int32_t, nvinfer1::DimsExprs* outputs,
                                int32_t, nvinfer1::IExprBuilder& builder) noexcept {
  return guarded(kFailed, [&] {
    // Sizes are expressions here: the letters of the inputs give those of the output.
    const auto rank = [&](int32_t i) { return inputs[i].nbDims; };
    const Positions positions = positions_of(op_, input_count, rank);
    Letters<Expressions> letters = letters_of(op_, values_, Expressions(builder));
    learn(
        op_, positions, letters, rank, [&](int32_t i, int32_t axis) { return inputs[i].d[axis]; },
        [&](int32_t i) {
          Dims known{rank(i), {}};
          for (int32_t axis = 0; axis < known.nbDims; ++axis) {
            const auto* size = inputs[i].d[axis];
            known.d[axis] = size->isConstant() ? size->getConstantValue() : -1;
          }
          return text_of(known);
        });
    outputs[0].nbDims = letters.sizes(op_.output.shape, outputs[0].d);
    return 0;
  });
}

bool Plugin::supportsFormatCombination(int32_t position,
                                       const nvinfer1::DynamicPluginTensorDesc* tensors,
                                       int32_t input_count, int32_t) noexcept {
  return guarded(false, [&] {
    const nvinfer1::PluginTensorDesc& tensor = tensors[position].desc;
    const Tensor* expected = &op_.output;
    if (position < input_count) {
      // Of those behind `position` nothing is known yet.
      const int32_t input = leading_positions(op_, position + 1, [&](int32_t i) {
                              return tensors[i].desc.dims.nbDims;
                            }).back();
      if (input < 0) return true;
      expected = &op_.inputs[static_cast<size_t>(input)];
    }
    // Tensors are dense and row-major; those of the type of the op have the type of the first
    // input.
    const bool same = expected->kind != Kind::kOfOp || tensor.type == tensors[0].desc.type;
    return tensor.format == nvinfer1::TensorFormat::kLINEAR && holds(expected->kind, tensor.type) &&
           same;
  });
}

int32_t Plugin::configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs,
                                int32_t input_count, const nvinfer1::DynamicPluginTensorDesc*,
                                int32_t) noexcept {
  return guarded(kFailed, [&] {
    const auto dims = [&](int32_t i) -> const Dims& { return inputs[i].desc.dims; };
    learn_numbers(op_, values_,
                  positions_of(op_, input_count, [&](int32_t i) { return dims(i).nbDims; }), dims);
    return 0;
  });
}

size_t Plugin::getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs,
                                int32_t input_count, const nvinfer1::DynamicPluginTensorDesc*,
                                int32_t) const noexcept {
  return guarded<size_t>(0, [&]() -> size_t {
    // For the largest sizes of the profile: a workspace never shrinks when a size grows.
    if (op_.workspace == nullptr) return 0;
    const auto dims = [&](int32_t i) -> const Dims& { return inputs[i].max; };
    const Positions positions =
        positions_of(op_, input_count, [&](int32_t i) { return dims(i).nbDims; });
    const int64_t bytes = op_.workspace(kernel_type(inputs[0].desc.type),
                                        learn_numbers(op_, values_, positions, dims));
    if (bytes < 0) throw Misfit(op_, "the largest sizes are more than the kernel takes");
    return static_cast<size_t>(bytes);
  });
}

int32_t Plugin::onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                              const nvinfer1::PluginTensorDesc*, int32_t) noexcept {
  return guarded(kFailed, [&] {
    const auto dims = [&](int32_t i) -> const Dims& { return inputs[i].dims; };
    positions_ = positions_of(op_, input_count, [&](int32_t i) { return dims(i).nbDims; });
    learn_numbers(op_, values_, positions_, dims);
    return 0;
  });
}

int32_t Plugin::enqueue(const nvinfer1::PluginTensorDesc* input_descriptions,
                        const nvinfer1::PluginTensorDesc* output_descriptions,
                        const void* const* inputs, void* const* outputs, void* workspace,
                        cudaStream_t stream) noexcept {
  return guarded(kFailed, [&] {
    if (positions_.empty()) throw Misfit(op_, "enqueue without onShapeChange");
    // An output without values needs no kernel, and its inputs may have no address.
    if (is_empty(output_descriptions[0].dims)) return 0;
    const Letters<Numbers> letters =
        learn_numbers(op_, values_, positions_,
                      [&](int32_t i) -> const Dims& { return input_descriptions[i].dims; });
    std::vector<const void*> tensors(op_.inputs.size(), nullptr);
    for (size_t i = 0; i < positions_.size(); ++i) {
      if (positions_[i] < 0) continue;
      // Of a tensor without values the address may be NULL, which means absent to the kernels.
      const bool nowhere = inputs[i] == nullptr && is_empty(input_descriptions[i].dims);
      tensors[static_cast<size_t>(positions_[i])] = nowhere ? outputs[0] : inputs[i];
    }
    const int32_t type = kernel_type(input_descriptions[0].type);
    const int64_t bytes = op_.workspace == nullptr ? 0 : op_.workspace(type, letters);
    const int32_t code =
        op_.launch({letters, type, tensors.data(), outputs[0], workspace, bytes, stream});
    if (code != DEBLUR_CUDA_OK) throw Misfit(op_, deblur_cuda_error_text(code));
    return 0;
  });
}

const nvinfer1::PluginFieldCollection* Plugin::getFieldsToSerialize() noexcept {
  return &collection_;
}

}  // namespace deblur_tensorrt
