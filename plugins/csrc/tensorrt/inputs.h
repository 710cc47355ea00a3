// Which of an op's inputs the tensors of a node are, and the letters that follow from their sizes.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "op.h"

namespace deblur_tensorrt {

// Of each tensor of a node, its place in Op::inputs; -1 for one that TensorRT passes as absent.
using Places = std::vector<int32_t>;

// Says what is wrong with a node; guarded() turns it into a line of the log.
struct Misfit : std::runtime_error {
  Misfit(const Op& op, const std::string& what)
      : std::runtime_error(std::string("deblur ") + op.name + ": " + what) {}
};

// An ONNX node may leave optional inputs out at the end or, with an empty name, before others; the
// parser passes the latter on as absent, without axes. `rank(i)` is the number of axes of tensor i;
// what follows the first `count` tensors may still be unknown. Throws Misfit for a surplus one.
template <typename Rank>
Places leading_places(const Op& op, int32_t count, Rank rank) {
  Places places(static_cast<size_t>(count), -1);
  size_t place = 0;
  for (int32_t i = 0; i < count; ++i, ++place) {
    const int32_t axes = rank(i);
    if (axes <= 0) continue;
    while (place < op.inputs.size() && op.inputs[place].optional &&
           axes_of(op.inputs[place].shape) != axes) {
      ++place;
    }
    if (place >= op.inputs.size()) {
      throw Misfit(op, "input " + std::to_string(i) + " is none that the op has");
    }
    places[static_cast<size_t>(i)] = static_cast<int32_t>(place);
  }
  return places;
}

// The same of all tensors. Throws Misfit where a required input is missing, too.
template <typename Rank>
Places places_of(const Op& op, int32_t count, Rank rank) {
  const Places places = leading_places(op, count, rank);
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    const auto here = std::find(places.begin(), places.end(), static_cast<int32_t>(i));
    if (here == places.end() && !op.inputs[i].optional) {
      throw Misfit(op, std::string("input ") + op.inputs[i].name + " is missing");
    }
  }
  return places;
}

// The letters of attributes (`values`, in the order of op.attributes) and of the op's name.
template <typename Algebra>
Letters<Algebra> letters_of(const Op& op, const std::vector<int32_t>& values, Algebra algebra) {
  Letters<Algebra> letters(algebra);
  for (size_t i = 0; i < values.size(); ++i) {
    letters.set(op.attributes[i].letter, values[i] + op.attributes[i].more);
  }
  if (op.letter != 0) letters.set(op.letter, op.number);
  return letters;
}

// Learns the letters of all inputs: `rank(i)` is the number of axes of tensor i, `size(i, axis)` one
// of its sizes, `text(i)` says them. Throws Misfit where inputs contradict each other.
template <typename Algebra, typename Rank, typename Size, typename Text>
void learn(const Op& op, const Places& places, Letters<Algebra>& letters, Rank rank, Size size,
           Text text) {
  constexpr int32_t kMost = nvinfer1::Dims::MAX_DIMS;
  for (int32_t i = 0; i < static_cast<int32_t>(places.size()); ++i) {
    const int32_t place = places[static_cast<size_t>(i)];
    if (place < 0) continue;
    const Tensor& input = op.inputs[static_cast<size_t>(place)];
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
