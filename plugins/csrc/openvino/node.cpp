// Node: reading a node of an ONNX file, inferring its shape, evaluating it.
#include "node.h"

#include <openvino/core/type/bfloat16.hpp>
#include <openvino/core/type/float16.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/transpose.hpp>

#include "threads.h"

namespace deblur_openvino {

namespace {

// A tensor as the kernels accept it, of float32 or int64, with `bf16_allowed` also bfloat16: the
// tensor itself, or a copy that is converted before (read) or after (write) the evaluation.
class Converted {
 public:
  Converted(const ov::Tensor& tensor, bool numbers, bool bf16_allowed) : tensor_(tensor) {
    const ov::element::Type type = numbers ? ov::element::i64 : ov::element::f32;
    own_ = tensor.get_element_type() == type;
    is_bf16_ = bf16_allowed && tensor.get_element_type() == ov::element::bf16;
    own_ = own_ || is_bf16_;
    if (!own_) converted_ = ov::Tensor(type, tensor.get_shape());
  }

  Values values() const {
    const ov::Tensor& used = own_ ? tensor_ : converted_;
    return {used.get_shape(), used.get_size() ? const_cast<void*>(used.data()) : nullptr, is_bf16_};
  }

  void read() const {
    if (!own_) convert(tensor_, converted_);
  }
  void write() const {
    if (!own_) convert(converted_, tensor_);
  }

 private:
  // Between float16 or bfloat16 and float32, and between int32 and int64.
  static void convert(const ov::Tensor& from, const ov::Tensor& to) {
    switch (from.get_element_type()) {
      case ov::element::f16:
        return copy<ov::float16, float>(from, to);
      case ov::element::bf16:
        return copy<ov::bfloat16, float>(from, to);
      case ov::element::i32:
        return copy<int32_t, int64_t>(from, to);
      case ov::element::i64:
        return copy<int64_t, int32_t>(from, to);
      default:
        break;
    }
    if (to.get_element_type() == ov::element::f16) return copy<float, ov::float16>(from, to);
    copy<float, ov::bfloat16>(from, to);
  }

  // Converts in parts, on the threads of OpenVINO.
  template <class From, class To>
  static void copy(const ov::Tensor& from, const ov::Tensor& to) {
    const From* in = static_cast<const From*>(from.data());
    To* out = static_cast<To*>(const_cast<void*>(to.data()));
    constexpr int64_t kPart = 1 << 15;
    const int64_t count = static_cast<int64_t>(from.get_size());
    parallel_for((count + kPart - 1) / kPart, [&](int64_t part) {
      const int64_t end = std::min(count, (part + 1) * kPart);
      for (int64_t i = part * kPart; i < end; ++i) out[i] = static_cast<To>(in[i]);
    });
  }

  ov::Tensor tensor_, converted_;
  bool own_, is_bf16_;
};

// x from NCHW to NHWC, or back; the same with one axis of pixels.
ov::Output<ov::Node> transposed(const ov::Output<ov::Node>& x, size_t rank, bool to_nhwc) {
  std::vector<int64_t> order(rank, 0);
  for (size_t axis = 1; axis < rank; ++axis) {
    const size_t before = to_nhwc ? axis % (rank - 1) + 1 : axis == 1 ? rank - 1 : axis - 1;
    order[axis] = static_cast<int64_t>(before);
  }
  const auto constant = ov::op::v0::Constant::create(ov::element::i64, {rank}, order);
  return std::make_shared<ov::op::v1::Transpose>(x, constant)->output(0);
}

bool is_value(const ov::element::Type& type) {
  return type.is_dynamic() || type == ov::element::f32 || type == ov::element::f16 ||
         type == ov::element::bf16;
}

bool is_number(const ov::element::Type& type) {
  return type.is_dynamic() || type == ov::element::i64 || type == ov::element::i32;
}

}  // namespace

ov::OutputVector Node::read(const ov::frontend::NodeContext& node, const Attributes& fixed) {
  for (auto& [name, value] : attributes_) value = node.get_attribute<int64_t>(name, value);
  for (const auto& [name, value] : fixed) attributes_[name] = value;
  ov::OutputVector inputs;
  for (size_t position = 0; position < node.get_input_size() && position < most_; ++position) {
    const ov::Output<ov::Node> input = node.get_input(static_cast<int>(position));
    // An input that the file leaves out comes as a node of this type, which no header declares.
    if (std::string("NullNode") == input.get_node()->get_type_name()) continue;
    mark_input(position);
    inputs.push_back(input);
  }
  // With fixed shapes, every feature map passes through a Transpose to NHWC, and the output through
  // one back.
  bool fixed_shapes = attributes_.count("last") != 0;
  for (size_t i = 0; i < inputs.size(); ++i)
    if (is_features(i)) fixed_shapes = fixed_shapes && inputs[i].get_partial_shape().is_static();
  if (fixed_shapes) {
    attributes_["last"] = 1;
    for (size_t i = 0; i < inputs.size(); ++i)
      if (is_features(i)) inputs[i] = transposed(inputs[i], inputs[i].get_shape().size(), true);
  }
  set_arguments(inputs);
  constructor_validate_and_infer_types();
  if (!fixed_shapes) return outputs();
  return {transposed(output(0), get_output_partial_shape(0).size(), false)};
}

// OpenVINO calls this whenever inputs change: checks their number, types and shapes, and sets the
// shape of the output as far as it is known.
void Node::validate_and_infer_types() {
  NODE_VALIDATION_CHECK(this, get_input_size() >= least_ && get_input_size() <= most_, "it has ",
                        get_input_size(), " inputs, not ", least_, " to ", most_);
  Shapes shapes;
  for (size_t i = 0; i < get_input_size(); ++i) {
    const ov::element::Type type = get_input_element_type(i);
    NODE_VALIDATION_CHECK(this, is_index(i) ? is_number(type) : is_value(type), "input ", i,
                          " is of type ", type);
    shapes.push_back(get_input_partial_shape(i));
  }
  set_output_type(0, output_type(), output_shape(shapes));
}

bool Node::visit_attributes(ov::AttributeVisitor& visitor) {
  for (auto& [name, value] : attributes_) visitor.on_attribute(name, value);
  return true;
}

bool Node::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
  // Inputs: their shapes, and their data in a type that the kernel accepts.
  Shapes shapes;
  Arguments arguments;
  std::vector<Converted> converted;
  for (size_t i = 0; i < inputs.size(); ++i) {
    OPENVINO_ASSERT(inputs[i].is_continuous(), get_type_name(), ": a tensor with gaps");
    shapes.push_back(inputs[i].get_shape());
    converted.emplace_back(inputs[i], is_index(i), channels_last() && is_features(i));
    converted.back().read();
    arguments.push_back(converted.back().values());
  }
  // The output, whose shape follows from the inputs; then the kernel.
  outputs[0].set_shape(output_shape(shapes).to_shape());
  const Converted output(outputs[0], output_type() == ov::element::i64, channels_last());
  const deblur_threads threads = runtime_threads();
  const int32_t code = compute(arguments, output.values(), &threads);
  OPENVINO_ASSERT(code == DEBLUR_OK, get_type_name(), ": ", deblur_error_text(code));
  output.write();
  return true;
}

void Node::expect(const char* name, const ov::PartialShape& shape,
                  std::initializer_list<ov::Dimension*> sizes) const {
  // merge() fails where two known sizes differ, and else sets the size that is known to either.
  if (shape.rank().is_dynamic()) return;
  bool fits = shape.size() == sizes.size();
  size_t axis = 0;
  for (ov::Dimension* size : sizes) {
    if (!fits) break;
    fits = ov::Dimension::merge(*size, *size, shape[axis++]);
  }
  ov::PartialShape wanted(std::vector<ov::Dimension>{});
  for (const ov::Dimension* size : sizes) wanted.push_back(*size);
  NODE_VALIDATION_CHECK(this, fits, name, " is ", shape, ", not ", wanted);
}

void Node::expect_images(const char* name, const ov::PartialShape& shape, ov::Dimension& n,
                         ov::Dimension& c, ov::Dimension& h, ov::Dimension& w) const {
  if (channels_last()) expect(name, shape, {&n, &h, &w, &c});
  else expect(name, shape, {&n, &c, &h, &w});
}

}  // namespace deblur_openvino
