// The ops of domain `deblur`.
#pragma once

#include "node.h"

namespace deblur_openvino {

// What every op declares; Node has the documentation.
#define DEBLUR_OPENVINO_METHODS(Class)                                                     \
  DEBLUR_OPENVINO_OP(Class)                                                                \
 protected:                                                                                \
  ov::PartialShape output_shape(const Shapes& inputs) const final;                         \
  int32_t compute(const Arguments& inputs, const Values& y, const deblur_threads* threads) \
      const final;

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

// The grid that a file may give as a fifth input is for other runtimes.
class MotionDeformConv final : public Node {
 public:
  MotionDeformConv() : Node(4, 4, {{"group", 0}, {"gate", 0}, {"last", 0}}) {}
  DEBLUR_OPENVINO_METHODS(MotionDeformConv)
  bool is_features(size_t input) const final { return input == 0; }
};

class DeformConv2d final : public Node {
 public:
  DeformConv2d() : Node(5, 5, {{"kernel", 0}}) {}
  DEBLUR_OPENVINO_METHODS(DeformConv2d)
};

class DeformConv2dAt final : public Node {
 public:
  DeformConv2dAt() : Node(6, 6, {{"kernel", 0}}) {}
  DEBLUR_OPENVINO_METHODS(DeformConv2dAt)
  bool is_index(size_t input) const final { return input == 5; }
};

class PrunedConv final : public Node {
 public:
  PrunedConv() : Node(6, 6, {{"group", 0}, {"last", 0}}) {}
  DEBLUR_OPENVINO_METHODS(PrunedConv)
  bool is_features(size_t input) const final { return input == 0; }
};

class PixelGather final : public Node {
 public:
  PixelGather() : Node(2, 2, {{"kernel", 0}}) {}
  DEBLUR_OPENVINO_METHODS(PixelGather)
  bool is_index(size_t input) const final { return input == 1; }
};

class PixelScatter final : public Node {
 public:
  PixelScatter() : Node(3, 3) {}
  DEBLUR_OPENVINO_METHODS(PixelScatter)
  bool is_index(size_t input) const final { return input == 1; }
};

class TopPixels final : public Node {
 public:
  TopPixels() : Node(1, 1, {{"ratio", 1}}) {}
  DEBLUR_OPENVINO_METHODS(TopPixels)
  ov::element::Type output_type() const final { return ov::element::i64; }
};

class LocalMean final : public Node {
 public:
  LocalMean() : Node(1, 1, {{"kernel", 0}}) {}
  DEBLUR_OPENVINO_METHODS(LocalMean)
};

class DynamicFilter final : public Node {
 public:
  DynamicFilter() : Node(2, 2, {{"group", 0}, {"kernel", 0}}) {}
  DEBLUR_OPENVINO_METHODS(DynamicFilter)
};

class SamplingGrid final : public Node {
 public:
  SamplingGrid() : Node(1, 1) {}
  DEBLUR_OPENVINO_METHODS(SamplingGrid)
  ov::element::Type output_type() const final { return ov::element::f32; }
};

}  // namespace deblur_openvino
