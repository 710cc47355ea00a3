// libdeblur_openvino.so: the custom ops of domain `deblur` for OpenVINO.
//
//   core.add_extension("libdeblur_openvino.so"); model = core.read_model("network.onnx")
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/core/version.hpp>
#include <openvino/frontend/onnx/extension/conversion.hpp>

#include "ops.h"

#define DEBLUR_TEXT_OF(x) #x
#define DEBLUR_TEXT(x) DEBLUR_TEXT_OF(x)

// plugins/libraries/openvino.py reads this text from the file, without loading the library, to find
// one that was made for the OpenVINO at hand.
extern "C" DEBLUR_API const char deblur_openvino_made_for[];
const char deblur_openvino_made_for[] =
    "deblur ops " DEBLUR_TEXT(DEBLUR_CPU_VERSION) " for OpenVINO " DEBLUR_TEXT(
        OPENVINO_VERSION_MAJOR) "." DEBLUR_TEXT(OPENVINO_VERSION_MINOR) "." DEBLUR_TEXT(OPENVINO_VERSION_PATCH);

namespace deblur_openvino {

namespace {

using Extensions = std::vector<ov::Extension::Ptr>;

// Adds the conversion of ONNX nodes of this name to an Op.
template <class Op>
void read_as(Extensions& list, const std::string& name, const Attributes& fixed = {}) {
  list.push_back(std::make_shared<ov::frontend::onnx::ConversionExtension>(
      name, "deblur", [fixed](const ov::frontend::NodeContext& node) {
        auto op = std::make_shared<Op>();
        return op->read(node, fixed);
      }));
}

template <class... Ops>
void add(Extensions& list) {
  (list.push_back(std::make_shared<ov::OpExtension<Ops>>()), ...);
  (read_as<Ops>(list, Ops::get_type_info_static().name), ...);
}

Extensions extensions() {
  Extensions list;
  add<SelectiveScan, MotionDeformConv, DeformConv2d, DeformConv2dAt, PrunedConv>(list);
  add<PixelGather, PixelScatter, TopPixels, LocalMean, DynamicFilter, SamplingGrid>(list);
  // In ONNX files the name of these ops ends with the size of the window.
  for (int64_t kernel : {3, 5})
    read_as<DynamicFilter>(list, "DynamicFilter" + std::to_string(kernel), {{"kernel", kernel}});
  for (int64_t kernel = 3; kernel <= 384; kernel *= 2)
    read_as<LocalMean>(list, "LocalMean" + std::to_string(kernel), {{"kernel", kernel}});
  return list;
}

}  // namespace

}  // namespace deblur_openvino

OPENVINO_CREATE_EXTENSIONS(deblur_openvino::extensions())
