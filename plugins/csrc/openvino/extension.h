// How the ops become an extension of OpenVINO; each file of ops adds its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/onnx/extension/conversion.hpp>

#include "node.h"

namespace deblur_openvino {

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

// Adds ops, and the conversion of ONNX nodes that have their names.
template <class... Ops>
void add(Extensions& list) {
  (list.push_back(std::make_shared<ov::OpExtension<Ops>>()), ...);
  (read_as<Ops>(list, Ops::get_type_info_static().name), ...);
}

void add_neural_ops(Extensions& list);
void add_pixel_ops(Extensions& list);

}  // namespace deblur_openvino
