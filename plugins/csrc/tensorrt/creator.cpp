// Makes plugins from the attributes of an ONNX node or of a serialised engine.
#include <algorithm>
#include <utility>

#include "log.h"
#include "plugin.h"

namespace deblur_tensorrt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

// The value of an attribute, which may come as int32 or int64.
int32_t integer(const Op& op, const PluginField& field) {
  if (field.length == 1 && field.data != nullptr) {
    if (field.type == PluginFieldType::kINT32) return *static_cast<const int32_t*>(field.data);
    if (field.type == PluginFieldType::kINT64) {
      return static_cast<int32_t>(*static_cast<const int64_t*>(field.data));
    }
  }
  throw Misfit(op, std::string("attribute ") + field.name + " is not one integer");
}

// Whether an attribute may have this value.
bool may_have(const Attribute& attribute, int32_t value) {
  const auto& values = attribute.values;
  return values.empty() ? value > 0 : std::count(values.begin(), values.end(), value) != 0;
}

// The values of op.attributes, in their order. Throws Misfit for one that is missing or wrong.
std::vector<int32_t> values_of(const Op& op, const nvinfer1::PluginFieldCollection& fields) {
  const PluginField* end = fields.fields + fields.nbFields;
  std::vector<int32_t> values;
  for (const Attribute& attribute : op.attributes) {
    const PluginField* field = std::find_if(fields.fields, end, [&](const PluginField& f) {
      return std::string(f.name) == attribute.name;
    });
    if (field == end && !attribute.optional) {
      throw Misfit(op, std::string("attribute ") + attribute.name + " is missing");
    }
    const int32_t value = field == end ? 0 : integer(op, *field);
    if (!may_have(attribute, value)) {
      throw Misfit(
          op, std::string("attribute ") + attribute.name + " cannot be " + std::to_string(value));
    }
    values.push_back(value);
  }
  return values;
}

}  // namespace

Creator::Creator(const Op& op) : op_(op) {
  for (const Attribute& attribute : op_.attributes) {
    fields_.emplace_back(attribute.name, nullptr, PluginFieldType::kINT32, 1);
  }
  collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
}

nvinfer1::IPluginV3* Creator::createPlugin(const char*,
                                           const nvinfer1::PluginFieldCollection* fields,
                                           nvinfer1::TensorRTPhase) noexcept {
  return guarded<nvinfer1::IPluginV3*>(nullptr, [&] {
    const nvinfer1::PluginFieldCollection none{0, nullptr};
    return new Plugin(op_, values_of(op_, fields == nullptr ? none : *fields));
  });
}

}  // namespace deblur_tensorrt
