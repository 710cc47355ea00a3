// Shapes written with letters, such as "n 2*k*k h w": an axis is a letter, a number, or letters and
// numbers joined by * and /, from left to right.
#pragma once

#include <stdint.h>

#include <array>
#include <optional>

#include <NvInferRuntime.h>

namespace deblur_tensorrt {

inline int32_t axes_of(const char* shape) {
  int32_t axes = 1;
  for (const char* text = shape; *text != '\0'; ++text) axes += *text == ' ' ? 1 : 0;
  return axes;
}

// What the letters stand for: numbers.
class Numbers {
 public:
  using Value = std::optional<int64_t>;

  Value constant(int64_t number) const { return number; }
  Value product(Value a, Value b) const { return *a * *b; }
  Value quotient(Value a, Value b) const { return *a / *b; }
  bool differ(Value a, Value b) const { return *a != *b; }
};

// What they stand for: numbers that TensorRT knows once it has an input.
class Expressions {
 public:
  using Value = const nvinfer1::IDimensionExpr*;

  explicit Expressions(nvinfer1::IExprBuilder& builder) : builder_(builder) {}

  Value constant(int64_t number) const { return builder_.constant(number); }
  Value product(Value a, Value b) const {
    return builder_.operation(nvinfer1::DimensionOperation::kPROD, *a, *b);
  }
  Value quotient(Value a, Value b) const {
    return builder_.operation(nvinfer1::DimensionOperation::kFLOOR_DIV, *a, *b);
  }
  // Certainly different: nothing is said of sizes that are not known yet.
  bool differ(Value a, Value b) const {
    return a->isConstant() && b->isConstant() && a->getConstantValue() != b->getConstantValue();
  }

 private:
  nvinfer1::IExprBuilder& builder_;
};

// The letters that are known. A value that is empty (nullopt, nullptr) is an unknown one.
template <typename Algebra>
class Letters {
 public:
  using Value = typename Algebra::Value;

  explicit Letters(Algebra algebra) : algebra_(algebra) {}

  void set(char letter, int64_t number) { at(letter) = algebra_.constant(number); }
  Value get(char letter) const { return known_[static_cast<size_t>(letter - 'a')]; }

  // Learns the letters that stand alone on an axis. False: the number of axes is another, or a size
  // contradicts one that is known.
  bool match(const char* shape, const Value* sizes, int32_t rank) {
    int32_t axis = 0;
    for (const char* text = shape; *text != '\0'; ++axis) {
      if (axis == rank) return false;
      const char first = *text;
      const bool alone = is_letter(first) && (text[1] == ' ' || text[1] == '\0');
      const Value expected = evaluate(text);
      if (!sizes[axis]) continue;
      if (alone && !expected) {
        at(first) = sizes[axis];
      } else if (expected && algebra_.differ(sizes[axis], expected)) {
        return false;
      }
    }
    return axis == rank;
  }

  // The sizes of a shape of at most 8 axes, unknown where a letter is; returns their number.
  int32_t sizes(const char* shape, Value* out) const {
    int32_t axis = 0;
    for (const char* text = shape; *text != '\0'; ++axis) out[axis] = evaluate(text);
    return axis;
  }

 private:
  static bool is_letter(char c) { return c >= 'a' && c <= 'z'; }
  Value& at(char letter) { return known_[static_cast<size_t>(letter - 'a')]; }

  // One axis; moves `text` to the next one or to the end.
  Value evaluate(const char*& text) const {
    Value value = factor(text);
    while (*text == '*' || *text == '/') {
      const bool times = *text++ == '*';
      const Value other = factor(text);
      if (!value || !other) {
        value = Value();
      } else {
        value = times ? algebra_.product(value, other) : algebra_.quotient(value, other);
      }
    }
    if (*text == ' ') ++text;
    return value;
  }

  Value factor(const char*& text) const {
    if (is_letter(*text)) return get(*text++);
    int64_t number = 0;
    while (*text >= '0' && *text <= '9') number = 10 * number + (*text++ - '0');
    return algebra_.constant(number);
  }

  Algebra algebra_;
  std::array<Value, 26> known_{};
};

}  // namespace deblur_tensorrt
