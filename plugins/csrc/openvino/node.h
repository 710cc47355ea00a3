// What the ops of the extension have in common: shapes that must fit, the layout of features,
// tensors in other types than the kernels take, and the threads of OpenVINO.
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

// An input or the output of one evaluation: dense, of float32 or int64; features in the layout
// "last" perhaps of bfloat16.
struct Values {
  ov::Shape shape;
  void* data = nullptr;
  bool low = false;  // bfloat16

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
  // Takes inputs and attributes from a node of an ONNX file and returns its outputs; `fixed` are
  // attributes that follow from its name.
  //
  // OpenVINO keeps features channels-last and turns them for nodes that it does not know. Where the
  // shapes are fixed, it leaves out a change of layout before a Transpose that takes it back: then
  // features pass through two of them, and the node gets what is there ("last" is 1).
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
  bool last() const {
    const auto found = attributes_.find("last");
    return found != attributes_.end() && found->second != 0;
  }
  // What deblur_cpu.h calls such features.
  int32_t kind(const Values& features) const {
    return !last() ? DEBLUR_FIRST : features.low ? DEBLUR_LAST_BF16 : DEBLUR_LAST;
  }

  // Which inputs of those that may be left out are there; by their place in the ONNX node.
  virtual void mark_input(size_t place) { (void)place; }
  // Whether an input has features that the op takes in either layout; the output is like them.
  virtual bool takes_features(size_t input) const { return (void)input, false; }
  // Whether an input holds pixel numbers and no values.
  virtual bool takes_numbers(size_t input) const { return (void)input, false; }
  // By default that of the first input.
  virtual ov::element::Type output_type() const { return get_input_element_type(0); }
  // The shape of the output. Throws where those of the inputs do not fit (`expect`).
  virtual ov::PartialShape output_shape(const Shapes& inputs) const = 0;
  // Fills y; returns a code of deblur_cpu.h.
  virtual int32_t compute(const Arguments& inputs, const Values& y,
                          const deblur_threads* threads) const = 0;

  // Throws unless `shape` has these sizes; a size that one of the two does not know yet is taken
  // from the other.
  void expect(const char* name, const ov::PartialShape& shape,
              std::initializer_list<ov::Dimension*> sizes) const;
  // The same for features, in the layout of this node.
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
