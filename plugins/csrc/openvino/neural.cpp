// The ops that compute features, by the kernels of deblur_cpu.h.
#include "ops.h"

namespace deblur_openvino {

using ov::Dimension;
using ov::PartialShape;

PartialShape SelectiveScan::output_shape(const Shapes& inputs) const {
  Dimension n, d, length, states;
  const bool gate = attribute("gate") != 0, bias = attribute("bias") != 0;
  NODE_VALIDATION_CHECK(this, inputs.size() == size_t{6} + gate + bias, "it has ", inputs.size(),
                        " inputs");
  expect("u", inputs[0], {&n, &d, &length});
  expect("delta", inputs[1], {&n, &d, &length});
  expect("A", inputs[2], {&d, &states});
  expect("B", inputs[3], {&n, &states, &length});
  expect("C", inputs[4], {&n, &states, &length});
  expect("D", inputs[5], {&d});
  if (gate) expect("z", inputs[6], {&n, &d, &length});
  if (bias) expect("delta_bias", inputs[size_t{6} + gate], {&d});
  return {n, d, length};
}

int32_t SelectiveScan::compute(const Arguments& x, const Values& y,
                               const deblur_threads* threads) const {
  const bool gate = attribute("gate") != 0, bias = attribute("bias") != 0;
  return deblur_selective_scan(
      x[0].floats(), x[1].floats(), x[2].floats(), x[3].floats(), x[4].floats(), x[5].floats(),
      gate ? x[6].floats() : nullptr, bias ? x[size_t{6} + gate].floats() : nullptr, y.floats(),
      x[0].size(0), x[0].size(1), x[2].size(1), x[0].size(2),
      static_cast<int32_t>(attribute("delta_softplus")), threads);
}

PartialShape MotionDeformConv::output_shape(const Shapes& inputs) const {
  Dimension n, c, h, w, fields = 18, one = 1, side = 3;
  if (attribute("group") > 0) c = attribute("group");
  expect("x", inputs[0], {&n, &c, &h, &w});
  expect("offset", inputs[1], {&n, &fields, &h, &w});
  expect("weight", inputs[2], {&c, &one, &side, &side});
  expect("bias", inputs[3], {&c});
  return {n, c, h, w};
}

int32_t MotionDeformConv::compute(const Arguments& x, const Values& y,
                                  const deblur_threads* threads) const {
  return deblur_motion_deform_conv(x[0].floats(), x[1].floats(), nullptr, x[2].floats(),
                                   x[3].floats(), y.floats(), x[0].size(0), x[0].size(1),
                                   x[0].size(2), x[0].size(3), threads);
}

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
                              x[0].size(2), x[0].size(3), x[2].size(0),
                              x[0].size(2) * x[0].size(3),
                              static_cast<int32_t>(attribute("kernel")), threads);
}

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
                              x[4].floats(), x[5].numbers(), y.floats(), x[0].size(0),
                              x[0].size(1), x[0].size(2), x[0].size(3), x[2].size(0),
                              x[5].size(1), static_cast<int32_t>(attribute("kernel")), threads);
}

PartialShape PrunedConv::output_shape(const Shapes& inputs) const {
  Dimension n, c, h, w, twice, one = 1, side = 3;
  if (attribute("group") > 0) twice = attribute("group"), c = attribute("group") / 2;
  expect("x", inputs[0], {&n, &c, &h, &w});
  if (c.is_static()) twice = 2 * c.get_length();
  expect("mask", inputs[1], {&n, &one, &h, &w});
  expect("weight1", inputs[2], {&twice, &c, &one, &one});
  expect("bias1", inputs[3], {&twice});
  expect("weight2", inputs[4], {&twice, &one, &side, &side});
  expect("bias2", inputs[5], {&twice});
  return {n, c, h, w};
}

int32_t PrunedConv::compute(const Arguments& x, const Values& y,
                            const deblur_threads* threads) const {
  return deblur_pruned_conv(x[0].floats(), x[1].floats(), x[2].floats(), x[3].floats(),
                            x[4].floats(), x[5].floats(), y.floats(), x[0].size(0), x[0].size(1),
                            x[0].size(2), x[0].size(3), threads);
}

}  // namespace deblur_openvino
