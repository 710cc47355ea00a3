// Calls every function with odd sizes and strange values on memory of exactly the right size, with
// each instruction set and several thread counts. The sanitizers look for what must not happen;
// the program itself compares the instruction sets with each other.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "deblur_cpu.h"

namespace {

using Vector = std::vector<float>;

std::mt19937 generator;

Vector noise(int64_t count, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  Vector v(static_cast<size_t>(count));
  for (float& x : v) x = normal(generator);
  return v;
}

using Call = std::function<int32_t(float* y, const deblur_threads* threads)>;

// The largest difference from the first result, as a fraction of the largest output.
double spread(const Call& call, size_t outputs) {
  Vector first;
  double worst = 0, largest = 1e-30;
  for (const char* isa : {"scalar", "avx2", "avx512", "avx512_bf16"}) {
    setenv("DEBLUR_ISA", isa, 1);
    for (int64_t count : {1, 2, 7}) {
      const deblur_threads threads = {count, nullptr, nullptr};
      Vector y(outputs);
      if (call(y.data(), &threads) != DEBLUR_OK) std::abort();
      if (first.empty()) first = y;
      for (size_t i = 0; i < outputs; ++i) {
        if (std::isnan(first[i]) && std::isnan(y[i])) continue;
        worst = std::fmax(worst, std::isnan(y[i] - first[i]) ? 1e9 : std::fabs(y[i] - first[i]));
        largest = std::fmax(largest, std::fabs(first[i]));
      }
    }
  }
  return worst / largest;
}

using LayoutCall =
    std::function<int32_t(int32_t layout, const void* x, void* y, const deblur_threads* threads)>;

// The same for feature maps with the channels last. Their values are such as bfloat16 holds, so
// that both types must give nearly the same result (eight bits).
double spread_nhwc(const Vector& x, size_t outputs, const LayoutCall& call) {
  std::vector<uint16_t> low(x.size()), result(outputs);
  Vector wide(x.size()), y(outputs);
  for (size_t i = 0; i < x.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &x[i], sizeof bits);
    low[i] = static_cast<uint16_t>(bits >> 16);
    bits &= 0xFFFF0000u;
    std::memcpy(&wide[i], &bits, sizeof bits);
  }
  const double worst = spread(
      [&](float* out, const deblur_threads* threads) {
        return call(DEBLUR_NHWC, wide.data(), out, threads);
      },
      outputs);
  double largest = 1e-30, difference = 0;
  for (const char* isa : {"scalar", "avx2", "avx512", "avx512_bf16"}) {
    setenv("DEBLUR_ISA", isa, 1);
    if (call(DEBLUR_NHWC, wide.data(), y.data(), nullptr) != DEBLUR_OK) std::abort();
    if (call(DEBLUR_NHWC_BF16, low.data(), result.data(), nullptr) != DEBLUR_OK) std::abort();
    for (size_t i = 0; i < outputs; ++i) {
      const uint32_t bits = static_cast<uint32_t>(result[i]) << 16;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      if (std::isnan(value) && std::isnan(y[i])) continue;
      const double off = std::fabs(value - y[i]);
      difference = std::fmax(difference, std::isnan(off) ? 1e9 : off);
      largest = std::fmax(largest, std::fabs(y[i]));
    }
  }
  return std::fmax(worst, difference / largest < 0x1p-6 ? 0 : difference);
}

double scan(int64_t n, int64_t d, int64_t s, int64_t length, bool gate) {
  const Vector u = noise(n * d * length), delta = noise(n * d * length), B = noise(n * s * length);
  const Vector C = noise(n * s * length), z = noise(n * d * length), D = noise(d);
  Vector A = noise(d * s);
  for (float& rate : A) rate = -std::fabs(rate);
  const int64_t wide = n * d * length, narrow = n * s * length;
  const Vector all = noise(3 * wide + 2 * narrow);  // u, delta, z, B, C
  const double nhwc = spread_nhwc(
      all, u.size(), [&](int32_t layout, const void* in, void* y, const deblur_threads* threads) {
        const auto at = [&](int64_t position) {
          return static_cast<const char*>(in) + position * (layout == DEBLUR_NHWC_BF16 ? 2 : 4);
        };
        return deblur_selective_scan(layout, at(0), at(wide), A.data(), at(3 * wide),
                                     at(3 * wide + narrow), D.data(), gate ? at(2 * wide) : nullptr,
                                     nullptr, y, n, d, s, length, 1, threads);
      });
  const double nchw = spread(
      [&](float* y, const deblur_threads* threads) {
        return deblur_selective_scan(DEBLUR_NCHW, u.data(), delta.data(), A.data(), B.data(),
                                     C.data(), D.data(), gate ? z.data() : nullptr,
                                     gate ? D.data() : nullptr, y, n, d, s, length, 1, threads);
      },
      u.size());
  return std::fmax(nchw, nhwc);
}

Vector strange_offsets(int64_t count) {
  Vector offset = noise(count, 3.0f);
  const float infinity = std::numeric_limits<float>::infinity();
  const float values[] = {NAN, infinity, -infinity, 1e30f, -1e30f, 2e9f, -0.0f, 1e-40f};
  for (size_t i = 0; i < offset.size(); i += 37) offset[i] = values[i % 8];
  return offset;
}

double motion(int64_t n, int64_t c, int64_t h, int64_t w, int32_t gate) {
  const Vector x = noise(n * c * h * w), offset = strange_offsets(n * 18 * h * w);
  const Vector weight = noise(c * 9), bias = noise(c);
  std::vector<char> plan(static_cast<size_t>(deblur_motion_plan_bytes(n, h, w)));
  if (deblur_motion_plan(offset.data(), plan.data(), n, h, w, nullptr) != 0) std::abort();
  double worst = 0;
  for (const void* ready :
       {static_cast<const void*>(nullptr), static_cast<const void*>(plan.data())})
    worst = std::fmax(worst, spread(
                                 [&](float* y, const deblur_threads* threads) {
                                   return deblur_motion_deform_conv(
                                       DEBLUR_NCHW, x.data(), offset.data(), ready, weight.data(),
                                       bias.data(), y, n, c, h, w, gate, threads);
                                 },
                                 x.size() >> gate));
  for (const void* ready :
       {static_cast<const void*>(nullptr), static_cast<const void*>(plan.data())})
    worst = std::fmax(worst, spread_nhwc(x, x.size() >> gate,
                                         [&](int32_t layout, const void* in, void* out,
                                             const deblur_threads* threads) {
                                           return deblur_motion_deform_conv(
                                               layout, in, offset.data(), ready, weight.data(),
                                               bias.data(), out, n, c, h, w, gate, threads);
                                         }));
  return worst;
}

double deform(int64_t n, int64_t c, int64_t h, int64_t w, int64_t outputs, int32_t k,
              std::vector<int64_t> index) {
  const int64_t pixels = index.empty() ? h * w : static_cast<int64_t>(index.size()) / n;
  const Vector x = noise(n * c * h * w), offset = strange_offsets(n * 2 * k * k * pixels);
  const Vector weight = noise(outputs * c * k * k), bias = noise(outputs);
  const Vector mask = noise(n * k * k * pixels);
  return spread(
      [&](float* y, const deblur_threads* threads) {
        return deblur_deform_conv2d(x.data(), offset.data(), weight.data(), bias.data(),
                                    mask.data(), index.empty() ? nullptr : index.data(), y, n, c, h,
                                    w, outputs, pixels, k, threads);
      },
      static_cast<size_t>(n * outputs * pixels));
}

double pruned(int64_t n, int64_t c, int64_t h, int64_t w, float threshold) {
  const Vector x = noise(n * c * h * w), weight1 = noise(2 * c * c), bias1 = noise(2 * c);
  const Vector weight2 = noise(2 * c * 9), bias2 = noise(2 * c);
  Vector mask = noise(n * h * w);
  for (float& m : mask) m = m < threshold ? 1.0f : 0.0f;
  const double nchw = spread(
      [&](float* y, const deblur_threads* threads) {
        return deblur_pruned_conv(DEBLUR_NCHW, x.data(), mask.data(), weight1.data(), bias1.data(),
                                  weight2.data(), bias2.data(), y, n, c, h, w, threads);
      },
      x.size());
  const double nhwc = spread_nhwc(
      x, x.size(), [&](int32_t layout, const void* in, void* out, const deblur_threads* threads) {
        return deblur_pruned_conv(layout, in, mask.data(), weight1.data(), bias1.data(),
                                  weight2.data(), bias2.data(), out, n, c, h, w, threads);
      });
  return std::fmax(nchw, nhwc);
}

// The filters, and the lists against what they must be.
double filter(int64_t planes, int64_t h, int64_t w, int32_t k) {
  const Vector x = noise(planes * h * w), weight = noise(planes * k * k);
  return spread(
      [&](float* y, const deblur_threads* threads) {
        return deblur_dynamic_filter(x.data(), weight.data(), y, planes, h, w, k, threads);
      },
      x.size());
}

double mean(int64_t planes, int64_t h, int64_t w, int32_t k) {
  const Vector x = noise(planes * h * w);
  return spread(
      [&](float* y, const deblur_threads* threads) {
        return deblur_local_mean(x.data(), y, planes, h, w, k, threads);
      },
      x.size());
}

double grid(int64_t n, int64_t h, int64_t w) {
  const Vector offset = strange_offsets(n * 18 * h * w);
  return spread(
      [&](float* y, const deblur_threads* threads) {
        return deblur_sampling_grid(offset.data(), y, n, h, w, threads);
      },
      offset.size());
}

double rows(int64_t n, int64_t c, int64_t h, int64_t w, int32_t k) {
  const Vector x = noise(n * c * h * w);
  std::vector<int64_t> index;
  for (int64_t i = 0; i < n * h * w; i += 2) index.push_back(i);
  const int64_t pixels = static_cast<int64_t>(index.size());
  return spread(
      [&](float* y, const deblur_threads* threads) {
        return deblur_pixel_gather(x.data(), index.data(), y, n, c, h, w, pixels, k, threads);
      },
      static_cast<size_t>(pixels * k * k * c));
}

double scattered(int64_t n, int64_t c, int64_t h, int64_t w) {
  const Vector base = noise(n * c * h * w), pixel = noise(c);
  const int64_t last = n * h * w - 1, outside = last + 1;
  Vector y = base;
  const auto call = [&](int64_t index) {
    return deblur_pixel_scatter(base.data(), &index, pixel.data(), y.data(), n, c, h, w, 1,
                                nullptr);
  };
  if (call(outside) != DEBLUR_BAD_NUMBER || call(-1) != DEBLUR_BAD_NUMBER) return 1;
  return call(last) == DEBLUR_OK && y.back() == pixel.back() ? 0 : 1;
}

double top(int64_t n, int64_t pixels, int64_t count) {
  Vector scores = noise(n * pixels);
  for (size_t i = 0; i < scores.size(); i += 3) scores[i] = i % 2 ? NAN : 0.5f;
  std::vector<int64_t> index(static_cast<size_t>(n * count));
  const int32_t code = deblur_top_pixels(scores.data(), index.data(), n, pixels, count, nullptr);
  for (size_t i = 0; i < index.size(); ++i)
    if (i % static_cast<size_t>(count) && index[i] <= index[i - 1]) return 1;
  return code == DEBLUR_OK ? 0 : 1;
}

}  // namespace

int main() {
  const int64_t far = std::numeric_limits<int64_t>::max();
  const struct {
    const char* name;
    double spread;
  } results[] = {
      {"scan, one step", scan(1, 1, 1, 1, true)},
      {"scan, odd", scan(2, 17, 5, 77, true)},
      {"scan, chunks", scan(1, 3, 9, 1301, false)},
      {"motion, one pixel", motion(2, 3, 1, 1, 0)},
      {"motion, odd", motion(1, 37, 5, 67, 0)},
      {"motion, blocks", motion(2, 100, 4, 3, 0)},
      {"motion, a pair", motion(1, 2, 1, 5, 1)},
      {"motion, gated", motion(2, 74, 5, 3, 1)},
      {"deform", deform(2, 5, 6, 7, 3, 5, {})},
      {"deform, odd", deform(1, 18, 3, 9, 33, 3, {})},
      {"deform, listed", deform(1, 3, 4, 5, 2, 5, {0, 19, 3, 3, -1, 20, far, -far - 1})},
      {"pruned, none", pruned(1, 5, 4, 9, -99.0f)},
      {"pruned, some", pruned(2, 19, 7, 41, -1.0f)},
      {"pruned, half", pruned(1, 33, 6, 70, 0.0f)},
      {"pruned, all", pruned(1, 4, 3, 3, 99.0f)},
      {"filter", filter(5, 7, 19, 5)},
      {"filter, one row", filter(2, 1, 3, 5)},
      {"filter, one pixel", filter(2, 1, 1, 3)},
      {"mean", mean(3, 31, 17, 12)},
      {"mean, wide", mean(1, 5, 30, 24)},
      {"mean, one pixel", mean(2, 1, 1, 384)},
      {"grid", grid(2, 3, 5)},
      {"rows", rows(2, 3, 25, 27, 3)},
      {"rows, one pixel", rows(1, 2, 1, 1, 3)},
      {"scattered", scattered(2, 19, 3, 5)},
      {"top", top(2, 60, 15)},
      {"top, all", top(1, 7, 7)},
  };
  bool good = true;
  for (const auto& result : results) {
    std::printf("%-20s %.1e\n", result.name, result.spread);
    good = good && result.spread < 1e-5;
  }
  return good ? 0 : 1;
}
