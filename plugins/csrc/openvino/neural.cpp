// The ops that compute feature maps, SelectiveScan and the convolutions: the node, the shape of its
// output, and the call of the kernel of deblur_cpu.h.
#include "extension.h"

namespace deblur_openvino {

using ov::Dimension;
using ov::PartialShape;

namespace {

// The axes of images: NCHW, or NHWC with `last`.
struct Axes {
  explicit Axes(bool last) : c(last ? 3 : 1), h(last ? 1 : 2), w(last ? 2 : 3) {}
  size_t c, h, w;

  PartialShape shape(const Dimension& n, const Dimension& channels, const Dimension& height,
                     const Dimension& width) const {
    PartialShape all{n, n, n, n};
    all[c] = channels, all[h] = height, all[w] = width;
    return all;
  }
};

}  // namespace

class SelectiveScan final : public Node {
 public:
  SelectiveScan() : Node(6, 8, {{"delta_softplus", 0}, {"gate", 0}, {"bias", 0}, {"last", 0}}) {}
  DEBLUR_OPENVINO_METHODS(SelectiveScan)
  bool is_features(size_t input) const final {
    return input < 2 || input == 3 || input == 4 || (input == 6 && attribute("gate") != 0);
  }
  void mark_input(size_t position) final {
    if (position == 6) attributes_["gate"] = 1;
    if (position == 7) attributes_["bias"] = 1;
  }
};

PartialShape SelectiveScan::output_shape(const Shapes& inputs) const {
  Dimension n, d, length, states;
  const bool gate = attribute("gate") != 0, bias = attribute("bias") != 0;
  NODE_VALIDATION_CHECK(this, inputs.size() == size_t{6} + gate + bias, "it has ", inputs.size(),
                        " inputs");
  const auto expect_sequence = [&](const char* name, size_t input, Dimension& channels) {
    if (channels_last()) expect(name, inputs[input], {&n, &length, &channels});
    else expect(name, inputs[input], {&n, &channels, &length});
  };
  expect_sequence("u", 0, d);
  expect_sequence("delta", 1, d);
  expect("A", inputs[2], {&d, &states});
  expect_sequence("B", 3, states);
  expect_sequence("C", 4, states);
  expect("D", inputs[5], {&d});
  if (gate) expect_sequence("z", 6, d);
  if (bias) expect("delta_bias", inputs[size_t{6} + gate], {&d});
  return channels_last() ? PartialShape{n, length, d} : PartialShape{n, d, length};
}

int32_t SelectiveScan::compute(const Arguments& x, const Values& y,
                               const deblur_threads* threads) const {
  const bool gate = attribute("gate") != 0, bias = attribute("bias") != 0;
  return deblur_selective_scan(layout(x[0]), x[0].data, x[1].data, x[2].floats(), x[3].data,
                               x[4].data, x[5].floats(), gate ? x[6].data : nullptr,
                               bias ? x[size_t{6} + gate].floats() : nullptr, y.data, x[0].size(0),
                               x[2].size(0), x[2].size(1), x[0].size(channels_last() ? 1 : 2),
                               static_cast<int32_t>(attribute("delta_softplus")), threads);
}

// The grid that a file may give as a fifth input is for other runtimes.
class MotionDeformConv final : public Node {
 public:
  MotionDeformConv() : Node(4, 4, {{"group", 0}, {"gate", 0}, {"last", 0}}) {}
  DEBLUR_OPENVINO_METHODS(MotionDeformConv)
  bool is_features(size_t input) const final { return input == 0; }
};

PartialShape MotionDeformConv::output_shape(const Shapes& inputs) const {
  Dimension n, c, h, w, fields = 18, one = 1, side = 3;
  if (attribute("group") > 0) c = attribute("group");
  expect_images("x", inputs[0], n, c, h, w);
  expect("offset", inputs[1], {&n, &fields, &h, &w});
  expect("weight", inputs[2], {&c, &one, &side, &side});
  expect("bias", inputs[3], {&c});
  const Axes axes(channels_last());
  if (attribute("gate") == 0) return axes.shape(n, c, h, w);
  NODE_VALIDATION_CHECK(this, attribute("gate") == 1, "gate is ", attribute("gate"));
  NODE_VALIDATION_CHECK(this, c.is_dynamic() || c.get_length() % 2 == 0, "x has ", c,
                        " channels, which are no pairs");
  return axes.shape(n, c.is_static() ? Dimension(c.get_length() / 2) : Dimension(), h, w);
}

int32_t MotionDeformConv::compute(const Arguments& x, const Values& y,
                                  const deblur_threads* threads) const {
  const Axes axes(channels_last());
  return deblur_motion_deform_conv(layout(x[0]), x[0].data, x[1].floats(), nullptr, x[2].floats(),
                                   x[3].floats(), y.data, x[0].size(0), x[0].size(axes.c),
                                   x[0].size(axes.h), x[0].size(axes.w),
                                   static_cast<int32_t>(attribute("gate")), threads);
}

class DeformConv2d final : public Node {
 public:
  DeformConv2d() : Node(5, 5, {{"kernel", 0}}) {}
  DEBLUR_OPENVINO_METHODS(DeformConv2d)
};

PartialShape DeformConv2d::output_shape(const Shapes& inputs) const {
  const int64_t kernel = attribute("kernel");
  Dimension n, c, h, w, o, side = kernel, fields = 2 * kernel * kernel, taps = kernel * kernel;
  expect("x", inputs[0], {&n, &c, &h, &w});
  expect("offset", inputs[1], {&n, &fields, &h, &w});
  expect("weight", inputs[2], {&o, &c, &side, &side});
  expect("bias", inputs[3], {&o});
  expect("mask", inputs[4], {&n, &taps, &h, &w});
  return {n, o, h, w};
}

int32_t DeformConv2d::compute(const Arguments& x, const Values& y,
                              const deblur_threads* threads) const {
  return deblur_deform_conv2d(x[0].floats(), x[1].floats(), x[2].floats(), x[3].floats(),
                              x[4].floats(), nullptr, y.floats(), x[0].size(0), x[0].size(1),
                              x[0].size(2), x[0].size(3), x[2].size(0), x[0].size(2) * x[0].size(3),
                              static_cast<int32_t>(attribute("kernel")), threads);
}

class DeformConv2dAt final : public Node {
 public:
  DeformConv2dAt() : Node(6, 6, {{"kernel", 0}}) {}
  DEBLUR_OPENVINO_METHODS(DeformConv2dAt)
  bool is_index(size_t input) const final { return input == 5; }
};

PartialShape DeformConv2dAt::output_shape(const Shapes& inputs) const {
  const int64_t kernel = attribute("kernel");
  Dimension n, c, h, w, o, p, side = kernel, fields = 2 * kernel * kernel, taps = kernel * kernel;
  expect("x", inputs[0], {&n, &c, &h, &w});
  expect("offset", inputs[1], {&n, &fields, &p});
  expect("weight", inputs[2], {&o, &c, &side, &side});
  expect("bias", inputs[3], {&o});
  expect("mask", inputs[4], {&n, &taps, &p});
  expect("index", inputs[5], {&n, &p});
  return {n, o, p};
}

int32_t DeformConv2dAt::compute(const Arguments& x, const Values& y,
                                const deblur_threads* threads) const {
  return deblur_deform_conv2d(x[0].floats(), x[1].floats(), x[2].floats(), x[3].floats(),
                              x[4].floats(), x[5].numbers(), y.floats(), x[0].size(0), x[0].size(1),
                              x[0].size(2), x[0].size(3), x[2].size(0), x[5].size(1),
                              static_cast<int32_t>(attribute("kernel")), threads);
}

class PrunedConv final : public Node {
 public:
  PrunedConv() : Node(6, 6, {{"group", 0}, {"last", 0}}) {}
  DEBLUR_OPENVINO_METHODS(PrunedConv)
  bool is_features(size_t input) const final { return input == 0; }
};

PartialShape PrunedConv::output_shape(const Shapes& inputs) const {
  Dimension n, c, h, w, twice, one = 1, side = 3;
  if (attribute("group") > 0) twice = attribute("group"), c = attribute("group") / 2;
  expect_images("x", inputs[0], n, c, h, w);
  if (c.is_static()) twice = 2 * c.get_length();
  expect("mask", inputs[1], {&n, &one, &h, &w});
  expect("weight1", inputs[2], {&twice, &c, &one, &one});
  expect("bias1", inputs[3], {&twice});
  expect("weight2", inputs[4], {&twice, &one, &side, &side});
  expect("bias2", inputs[5], {&twice});
  return Axes(channels_last()).shape(n, c, h, w);
}

int32_t PrunedConv::compute(const Arguments& x, const Values& y,
                            const deblur_threads* threads) const {
  const Axes axes(channels_last());
  return deblur_pruned_conv(layout(x[0]), x[0].data, x[1].floats(), x[2].floats(), x[3].floats(),
                            x[4].floats(), x[5].floats(), y.data, x[0].size(0), x[0].size(axes.c),
                            x[0].size(axes.h), x[0].size(axes.w), threads);
}

// Adds the ops of this file.
void add_neural_ops(Extensions& list) {
  add<SelectiveScan, MotionDeformConv, DeformConv2d, DeformConv2dAt, PrunedConv>(list);
}

}  // namespace deblur_openvino
