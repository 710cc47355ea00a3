// The base class of the OpenVINO ops: the checks of shapes, the layout of feature maps, and the
// conversion of tensors whose type the kernels do not accept.
#pragma once

#include <stdint.h>

#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <openvino/frontend/node_context.hpp>
#include <openvino/op/op.hpp>

#include "../deblur_cpu.h"

namespace deblur_openvino {

// An input or the output of one evaluation: dense, of float32 or int64. Feature maps with the
// channels last may also be bfloat16.
struct Values {
  ov::Shape shape;
  void* data = nullptr;
  bool is_bf16 = false;

  float* floats() const { return static_cast<float*>(data); }
  int64_t* numbers() const { return static_cast<int64_t*>(data); }
  int64_t size(size_t axis) const { return static_cast<int64_t>(shape[axis]); }
};
using Arguments = std::vector<Values>;
using Shapes = std::vector<ov::PartialShape>;
using Attributes = std::map<std::string, int64_t>;

// An op with one output and integer attributes.
class Node : public ov::op::Op {
 public:
  // Reads inputs and attributes from a node of an ONNX file and returns its outputs; `fixed` has
  // the attributes that follow from the name of the node.
  //
  // OpenVINO keeps feature maps in NHWC and transposes them for nodes that it does not know. Where
  // shapes are fixed, it removes such a conversion together with a Transpose that reverts it.
  // Hence, with fixed shapes, feature maps pass through two Transposes and the node gets them in
  // NHWC, as they are (its attribute "last" is 1).
  ov::OutputVector read(const ov::frontend::NodeContext& node, const Attributes& fixed);

  void validate_and_infer_types() final;
  bool visit_attributes(ov::AttributeVisitor& visitor) final;
  bool has_evaluate() const final { return true; }
  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const final;

 protected:
  // `least` to `most` inputs.
  Node(size_t least, size_t most, Attributes attributes = {})
      : attributes_(std::move(attributes)), least_(least), most_(most) {}

  int64_t attribute(const char* name) const { return attributes_.at(name); }
  bool channels_last() const {
    const auto found = attributes_.find("last");
    return found != attributes_.end() && found->second != 0;
  }
  // The `layout` of deblur_cpu.h for the feature maps of this node.
  int32_t layout(const Values& features) const {
    return !channels_last() ? DEBLUR_NCHW : features.is_bf16 ? DEBLUR_NHWC_BF16 : DEBLUR_NHWC;
  }

  // Called for every input that the ONNX node has, with its position there: notes which of the
  // optional ones are present.
  virtual void mark_input(size_t position) { (void)position; }
  // Whether an input is a feature map that the op accepts in NCHW and NHWC; the output has the same
  // layout.
  virtual bool is_features(size_t input) const { return (void)input, false; }
  // Whether an input holds pixel numbers instead of values.
  virtual bool is_index(size_t input) const { return (void)input, false; }
  // By default that of the first input.
  virtual ov::element::Type output_type() const { return get_input_element_type(0); }
  // The shape of the output. Throws where those of the inputs do not fit (`expect`).
  virtual ov::PartialShape output_shape(const Shapes& inputs) const = 0;
  // Fills y; returns a code of deblur_cpu.h.
  virtual int32_t compute(const Arguments& inputs, const Values& y,
                          const deblur_threads* threads) const = 0;

  // Throws unless `shape` has these sizes. A size that is unknown on one side is taken from the
  // other.
  void expect(const char* name, const ov::PartialShape& shape,
              std::initializer_list<ov::Dimension*> sizes) const;
  // The same for a feature map, in the layout of this node.
  void expect_images(const char* name, const ov::PartialShape& shape, ov::Dimension& n,
                     ov::Dimension& c, ov::Dimension& h, ov::Dimension& w) const;

  Attributes attributes_;

 private:
  size_t least_, most_;
};

}  // namespace deblur_openvino

// In the class of an op: its name, and how OpenVINO copies a node of it.
#define DEBLUR_OPENVINO_OP(Class)                                                               \
  OPENVINO_OP(#Class, "deblur");                                                                \
  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const final { \
    auto copy = std::make_shared<Class>();                                                      \
    copy->attributes_ = attributes_;                                                            \
    copy->set_arguments(inputs);                                                                \
    copy->constructor_validate_and_infer_types();                                               \
    return copy;                                                                                \
  }

// What every op declares; Node has the documentation.
#define DEBLUR_OPENVINO_METHODS(Class)                                                     \
  DEBLUR_OPENVINO_OP(Class)                                                                \
 protected:                                                                                \
  ov::PartialShape output_shape(const Shapes& inputs) const final;                         \
  int32_t compute(const Arguments& inputs, const Values& y, const deblur_threads* threads) \
      const final;
