// Which of an op's inputs the tensors of a TensorRT node are, and the letters (see shapes.h) that
// follow from their sizes.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "op.h"

namespace deblur_tensorrt {

// For each tensor of a node, its position in Op::inputs; -1 for one that TensorRT passes as absent.
using Positions = std::vector<int32_t>;

// What is wrong with a node; guarded() writes it to the log as one line.
struct Misfit : std::runtime_error {
  Misfit(const Op& op, const std::string& what)
      : std::runtime_error(std::string("deblur ") + op.name + ": " + what) {}
};

// The positions of the first `count` tensors; those behind may be unknown. An ONNX node may leave
// optional inputs out at its end or, with an empty name, before others; the parser passes the
// latter on as absent tensors without axes. `rank(i)` is the number of axes of tensor i. Throws
// Misfit for a tensor that is no input of the op.
template <typename Rank>
Positions leading_positions(const Op& op, int32_t count, Rank rank) {
  Positions positions(static_cast<size_t>(count), -1);
  size_t position = 0;
  for (int32_t i = 0; i < count; ++i, ++position) {
    const int32_t axes = rank(i);
    if (axes <= 0) continue;
    while (position < op.inputs.size() && op.inputs[position].optional &&
           axes_of(op.inputs[position].shape) != axes) {
      ++position;
    }
    if (position >= op.inputs.size()) {
      throw Misfit(op, "input " + std::to_string(i) + " is none that the op has");
    }
    positions[static_cast<size_t>(i)] = static_cast<int32_t>(position);
  }
  return positions;
}

// The positions of all tensors. Also throws Misfit where a required input is missing.
template <typename Rank>
Positions positions_of(const Op& op, int32_t count, Rank rank) {
  const Positions positions = leading_positions(op, count, rank);
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    const auto here = std::find(positions.begin(), positions.end(), static_cast<int32_t>(i));
    if (here == positions.end() && !op.inputs[i].optional) {
      throw Misfit(op, std::string("input ") + op.inputs[i].name + " is missing");
    }
  }
  return positions;
}

// The letters that attributes (`values`, in the order of op.attributes) and the name of the op
// give.
template <typename Algebra>
Letters<Algebra> letters_of(const Op& op, const std::vector<int32_t>& values, Algebra algebra) {
  Letters<Algebra> letters(algebra);
  for (size_t i = 0; i < values.size(); ++i) {
    letters.set(op.attributes[i].letter, values[i] + op.attributes[i].more);
  }
  if (op.letter != 0) letters.set(op.letter, op.number);
  return letters;
}

// Learns the letters of all inputs: `rank(i)` is the number of axes of tensor i, `size(i, axis)`
// one of its sizes, `text(i)` says them. Throws Misfit where inputs contradict each other.
template <typename Algebra, typename Rank, typename Size, typename Text>
void learn(const Op& op, const Positions& positions, Letters<Algebra>& letters, Rank rank,
           Size size, Text text) {
  constexpr int32_t kMost = nvinfer1::Dims::MAX_DIMS;
  for (int32_t i = 0; i < static_cast<int32_t>(positions.size()); ++i) {
    const int32_t position = positions[static_cast<size_t>(i)];
    if (position < 0) continue;
    const Tensor& input = op.inputs[static_cast<size_t>(position)];
    const int32_t axes = std::min(rank(i), kMost);
    typename Algebra::Value sizes[kMost] = {};
    for (int32_t axis = 0; axis < axes; ++axis) sizes[axis] = size(i, axis);
    if (!letters.match(input.shape, sizes, axes)) {
      throw Misfit(op, std::string(input.name) + " is [" + text(i) + "], which does not fit [" +
                           input.shape + "] with the other inputs and the attributes");
    }
  }
}

}  // namespace deblur_tensorrt
