// The ops that select and filter pixels: the node, the shape of its output, and the call of the
// kernel of deblur_cpu.h.
#include "extension.h"

namespace deblur_openvino {

using ov::Dimension;
using ov::PartialShape;

namespace {

int64_t planes(const Values& x) { return x.size(0) * x.size(1); }

// count * factor where the count is known.
Dimension times(const Dimension& count, int64_t factor) {
  return count.is_static() ? Dimension(count.get_length() * factor) : Dimension();
}

}  // namespace

class PixelGather final : public Node {
 public:
  PixelGather() : Node(2, 2, {{"kernel", 0}}) {}
  DEBLUR_OPENVINO_METHODS(PixelGather)
  bool is_index(size_t input) const final { return input == 1; }
};

PartialShape PixelGather::output_shape(const Shapes& inputs) const {
  Dimension n, c, h, w, p;
  expect("x", inputs[0], {&n, &c, &h, &w});
  expect("index", inputs[1], {&p});
  return {p, times(c, attribute("kernel") * attribute("kernel"))};
}

int32_t PixelGather::compute(const Arguments& x, const Values& y,
                             const deblur_threads* threads) const {
  return deblur_pixel_gather(x[0].floats(), x[1].numbers(), y.floats(), x[0].size(0), x[0].size(1),
                             x[0].size(2), x[0].size(3), x[1].size(0),
                             static_cast<int32_t>(attribute("kernel")), threads);
}

class PixelScatter final : public Node {
 public:
  PixelScatter() : Node(3, 3) {}
  DEBLUR_OPENVINO_METHODS(PixelScatter)
  bool is_index(size_t input) const final { return input == 1; }
};

PartialShape PixelScatter::output_shape(const Shapes& inputs) const {
  Dimension n, c, h, w, p;
  expect("base", inputs[0], {&n, &c, &h, &w});
  expect("index", inputs[1], {&p});
  expect("rows", inputs[2], {&p, &c});
  return {n, c, h, w};
}

int32_t PixelScatter::compute(const Arguments& x, const Values& y,
                              const deblur_threads* threads) const {
  return deblur_pixel_scatter(x[0].floats(), x[1].numbers(), x[2].floats(), y.floats(),
                              x[0].size(0), x[0].size(1), x[0].size(2), x[0].size(3), x[1].size(0),
                              threads);
}

class TopPixels final : public Node {
 public:
  TopPixels() : Node(1, 1, {{"ratio", 1}}) {}
  DEBLUR_OPENVINO_METHODS(TopPixels)
  ov::element::Type output_type() const final { return ov::element::i64; }
};

PartialShape TopPixels::output_shape(const Shapes& inputs) const {
  Dimension n, one = 1, h, w;
  const int64_t ratio = attribute("ratio");
  expect("scores", inputs[0], {&n, &one, &h, &w});
  NODE_VALIDATION_CHECK(this, ratio >= 1, "ratio is ", ratio);
  if (h.is_dynamic() || w.is_dynamic()) return {n, Dimension()};
  const int64_t height = h.get_length(), width = w.get_length();
  NODE_VALIDATION_CHECK(this, height % ratio == 0 && width % ratio == 0, height, "x", width,
                        " is no multiple of ratio ", ratio);
  return {n, (height / ratio) * (width / ratio)};
}

int32_t TopPixels::compute(const Arguments& x, const Values& y,
                           const deblur_threads* threads) const {
  return deblur_top_pixels(x[0].floats(), y.numbers(), x[0].size(0), x[0].size(2) * x[0].size(3),
                           y.size(1), threads);
}

class LocalMean final : public Node {
 public:
  LocalMean() : Node(1, 1, {{"kernel", 0}}) {}
  DEBLUR_OPENVINO_METHODS(LocalMean)
};

PartialShape LocalMean::output_shape(const Shapes& inputs) const {
  Dimension n, c, h, w;
  expect("x", inputs[0], {&n, &c, &h, &w});
  return {n, c, h, w};
}

int32_t LocalMean::compute(const Arguments& x, const Values& y,
                           const deblur_threads* threads) const {
  return deblur_local_mean(x[0].floats(), y.floats(), planes(x[0]), x[0].size(2), x[0].size(3),
                           static_cast<int32_t>(attribute("kernel")), threads);
}

class DynamicFilter final : public Node {
 public:
  DynamicFilter() : Node(2, 2, {{"group", 0}, {"kernel", 0}}) {}
  DEBLUR_OPENVINO_METHODS(DynamicFilter)
};

PartialShape DynamicFilter::output_shape(const Shapes& inputs) const {
  Dimension n, c, h, w, taps = attribute("kernel") * attribute("kernel");
  if (attribute("group") > 0) c = attribute("group");
  expect("x", inputs[0], {&n, &c, &h, &w});
  expect("weight", inputs[1], {&n, &c, &taps});
  return {n, c, h, w};
}

int32_t DynamicFilter::compute(const Arguments& x, const Values& y,
                               const deblur_threads* threads) const {
  return deblur_dynamic_filter(x[0].floats(), x[1].floats(), y.floats(), planes(x[0]), x[0].size(2),
                               x[0].size(3), static_cast<int32_t>(attribute("kernel")), threads);
}

class SamplingGrid final : public Node {
 public:
  SamplingGrid() : Node(1, 1) {}
  DEBLUR_OPENVINO_METHODS(SamplingGrid)
  ov::element::Type output_type() const final { return ov::element::f32; }
};

PartialShape SamplingGrid::output_shape(const Shapes& inputs) const {
  Dimension n, fields = 18, h, w;
  expect("offset", inputs[0], {&n, &fields, &h, &w});
  return {9, n, h, w, 2};
}

int32_t SamplingGrid::compute(const Arguments& x, const Values& y,
                              const deblur_threads* threads) const {
  return deblur_sampling_grid(x[0].floats(), y.floats(), x[0].size(0), x[0].size(2), x[0].size(3),
                              threads);
}

// Adds the ops of this file. In ONNX files the names of two end with the size of the window.
void add_pixel_ops(Extensions& list) {
  add<PixelGather, PixelScatter, TopPixels, LocalMean, DynamicFilter, SamplingGrid>(list);
  for (int64_t kernel : {3, 5})
    read_as<DynamicFilter>(list, "DynamicFilter" + std::to_string(kernel), {{"kernel", kernel}});
  for (int64_t kernel = 3; kernel <= 384; kernel *= 2)
    read_as<LocalMean>(list, "LocalMean" + std::to_string(kernel), {{"kernel", kernel}});
}

}  // namespace deblur_openvino
