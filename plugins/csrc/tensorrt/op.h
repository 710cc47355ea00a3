// What TensorRT needs to know about an op of domain `deblur`, as data; ops.cpp has all of them.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "shapes.h"

namespace deblur_tensorrt {

// What a tensor holds: the floating-point type of the op (what its specification calls T), always
// float32, or pixel numbers.
enum class Kind { kOfOp, kFloat, kNumbers };

struct Tensor {
  const char* name;
  Kind kind;
  const char* shape;  // see shapes.h
  // May be left out. Such inputs follow the others and differ in their number of axes, by which
  // they are told apart.
  bool optional = false;
};

// An integer attribute of the ONNX node, and the letter that it gives to the shapes.
struct Attribute {
  const char* name;
  char letter;
  std::vector<int32_t> values;  // those it may have; empty for any positive one
  bool optional = false;        // 0 where it is left out
  int32_t more = 0;             // added to the value for the letter
};

// One evaluation. `inputs` is in the order of Op::inputs, NULL where one is left out.
struct Call {
  const Letters<Numbers>& letters;
  int32_t type;  // of deblur_cuda.h
  const void* const* inputs;
  void* output;
  void* workspace;
  int64_t workspace_bytes;
  void* stream;

  int64_t size(char letter) const { return *letters.get(letter); }
  int32_t number(char letter) const { return static_cast<int32_t>(size(letter)); }
  const float* floats(size_t input) const { return static_cast<const float*>(inputs[input]); }
  const int64_t* numbers(size_t input) const { return static_cast<const int64_t*>(inputs[input]); }
};

struct Op {
  const char* name;
  std::vector<Tensor> inputs;
  Tensor output;
  std::vector<Attribute> attributes;
  // Returns a code of deblur_cuda.h.
  int32_t (*launch)(const Call&);
  // Bytes, negative for sizes that are refused; NULL for none at any size.
  int64_t (*workspace)(int32_t type, const Letters<Numbers>& letters) = nullptr;
  // A letter that follows from the name.
  char letter = 0;
  int64_t number = 0;
};

// All ops, in the order of their names.
const std::vector<Op>& ops();

}  // namespace deblur_tensorrt
