// The table of the ops: their tensors, attributes and workspaces, and the calls of deblur_cuda.h.
#include "op.h"

#include "../deblur_cuda.h"

namespace deblur_tensorrt {
namespace {

using Sizes = Letters<Numbers>;

constexpr Kind T = Kind::kOfOp, F = Kind::kFloat, I = Kind::kNumbers;

int64_t at(const Sizes& sizes, char letter) { return *sizes.get(letter); }

// Letters: n images, c channels, h x w pixels, l steps, d channels and s states of a scan, o
// outputs, p listed pixels, g groups, k a side of the kernel, r a ratio, b a flag, e the channels
// that a gate makes one of.

// clang-format off: every op has one tensor or attribute in a line, whatever its length.

Op selective_scan() {
  return {"SelectiveScan",
          {{"u", T, "n d l"},
           {"delta", F, "n d l"},
           {"A", F, "d s"},
           {"B", T, "n s l"},
           {"C", T, "n s l"},
           {"D", F, "d"},
           {"z", T, "n d l", true},
           {"delta_bias", F, "d", true}},
          {"y", T, "n d l"},
          {{"delta_softplus", 'b', {0, 1}}},
          [](const Call& c) {
            return deblur_cuda_selective_scan(
                c.type, c.inputs[0], c.floats(1), c.floats(2), c.inputs[3], c.inputs[4],
                c.floats(5), c.inputs[6], c.floats(7), c.output, c.size('n'), c.size('d'),
                c.size('s'), c.size('l'), c.number('b'), c.workspace, c.workspace_bytes, c.stream);
          },
          [](int32_t type, const Sizes& s) {
            return deblur_cuda_selective_scan_workspace(type, at(s, 'n'), at(s, 'd'), at(s, 's'),
                                                        at(s, 'l'));
          }};
}

// The grid that a file may give as a fifth input is for other runtimes.
Op motion_deform_conv() {
  return {"MotionDeformConv",
          {{"x", T, "n g h w"},
           {"offset", F, "n 18 h w"},
           {"weight", T, "g 1 3 3"},
           {"bias", T, "g"},
           {"grid", F, "9 n h w 2", true}},
          {"y", T, "n g/e h w"},
          {{"group", 'g', {}}, {"gate", 'e', {0, 1}, true, 1}},
          [](const Call& c) {
            return deblur_cuda_motion_deform_conv(
                c.type, c.inputs[0], c.floats(1), c.inputs[2], c.inputs[3], c.output, c.size('n'),
                c.size('g'), c.size('h'), c.size('w'), c.number('e') - 1, c.workspace,
                c.workspace_bytes, c.stream);
          },
          [](int32_t type, const Sizes& s) {
            return deblur_cuda_motion_deform_conv_workspace(
                type, at(s, 'n'), at(s, 'g'), at(s, 'h'), at(s, 'w'),
                static_cast<int32_t>(at(s, 'e')) - 1);
          }};
}

int64_t deform_conv2d_workspace(int32_t type, const Sizes& s) {
  return deblur_cuda_deform_conv2d_workspace(type, at(s, 'n'), at(s, 'c'), at(s, 'h'), at(s, 'w'),
                                             at(s, 'o'), static_cast<int32_t>(at(s, 'k')));
}

Op deform_conv2d() {
  return {"DeformConv2d",
          {{"x", T, "n c h w"},
           {"offset", F, "n 2*k*k h w"},
           {"weight", T, "o c k k"},
           {"bias", T, "o"},
           {"mask", T, "n k*k h w"}},
          {"y", T, "n o h w"},
          {{"kernel", 'k', {3, 5}}},
          [](const Call& c) {
            return deblur_cuda_deform_conv2d(
                c.type, c.inputs[0], c.floats(1), c.inputs[2], c.inputs[3], c.inputs[4], nullptr,
                c.output, c.size('n'), c.size('c'), c.size('h'), c.size('w'), c.size('o'),
                c.size('h') * c.size('w'), c.number('k'), c.workspace, c.workspace_bytes, c.stream);
          },
          deform_conv2d_workspace};
}

Op deform_conv2d_at() {
  return {"DeformConv2dAt",
          {{"x", T, "n c h w"},
           {"offset", F, "n 2*k*k p"},
           {"weight", T, "o c k k"},
           {"bias", T, "o"},
           {"mask", T, "n k*k p"},
           {"index", I, "n p"}},
          {"y", T, "n o p"},
          {{"kernel", 'k', {3, 5}}},
          [](const Call& c) {
            return deblur_cuda_deform_conv2d(
                c.type, c.inputs[0], c.floats(1), c.inputs[2], c.inputs[3], c.inputs[4],
                c.numbers(5), c.output, c.size('n'), c.size('c'), c.size('h'), c.size('w'),
                c.size('o'), c.size('p'), c.number('k'), c.workspace, c.workspace_bytes, c.stream);
          },
          deform_conv2d_workspace};
}

Op pruned_conv() {
  return {"PrunedConv",
          {{"x", T, "n c h w"},
           {"mask", T, "n 1 h w"},
           {"weight1", T, "g c 1 1"},
           {"bias1", T, "g"},
           {"weight2", T, "2*c 1 3 3"},
           {"bias2", T, "2*c"}},
          {"y", T, "n c h w"},
          {{"group", 'g', {}}},
          [](const Call& c) {
            return deblur_cuda_pruned_conv(
                c.type, c.inputs[0], c.inputs[1], c.inputs[2], c.inputs[3], c.inputs[4],
                c.inputs[5], c.output, c.size('n'), c.size('c'), c.size('h'), c.size('w'),
                c.workspace, c.workspace_bytes, c.stream);
          },
          [](int32_t type, const Sizes& s) {
            return deblur_cuda_pruned_conv_workspace(type, at(s, 'n'), at(s, 'c'), at(s, 'h'),
                                                     at(s, 'w'));
          }};
}

Op pixel_gather() {
  return {"PixelGather",
          {{"x", T, "n c h w"}, {"index", I, "p"}},
          {"rows", T, "p k*k*c"},
          {{"kernel", 'k', {1, 3}}},
          [](const Call& c) {
            return deblur_cuda_pixel_gather(c.type, c.inputs[0], c.numbers(1), c.output,
                                            c.size('n'), c.size('c'), c.size('h'), c.size('w'),
                                            c.size('p'), c.number('k'), c.stream);
          }};
}

Op pixel_scatter() {
  return {"PixelScatter",
          {{"base", T, "n c h w"}, {"index", I, "p"}, {"rows", T, "p c"}},
          {"y", T, "n c h w"},
          {},
          [](const Call& c) {
            return deblur_cuda_pixel_scatter(c.type, c.inputs[0], c.numbers(1), c.inputs[2],
                                             c.output, c.size('n'), c.size('c'), c.size('h'),
                                             c.size('w'), c.size('p'), c.stream);
          }};
}

// The size of the kernel follows from the name of the op.
Op dynamic_filter(const char* name, int64_t kernel) {
  return {name,
          {{"x", T, "n g h w"}, {"weight", T, "n g k*k"}},
          {"y", T, "n g h w"},
          {{"group", 'g', {}}},
          [](const Call& c) {
            return deblur_cuda_dynamic_filter(c.type, c.inputs[0], c.inputs[1], c.output,
                                              c.size('n') * c.size('g'), c.size('h'), c.size('w'),
                                              c.number('k'), c.stream);
          },
          nullptr, 'k', kernel};
}

// The size of the window follows from the name of the op.
Op local_mean(const char* name, int64_t kernel) {
  return {name,
          {{"x", T, "n c h w"}},
          {"y", T, "n c h w"},
          {},
          [](const Call& c) {
            return deblur_cuda_local_mean(c.type, c.inputs[0], c.output, c.size('n') * c.size('c'),
                                          c.size('h'), c.size('w'), c.number('k'), c.workspace,
                                          c.workspace_bytes, c.stream);
          },
          [](int32_t, const Sizes& s) {
            return deblur_cuda_local_mean_workspace(at(s, 'n') * at(s, 'c'), at(s, 'h'),
                                                    at(s, 'w'));
          },
          'k', kernel};
}

Op sampling_grid() {
  return {"SamplingGrid",
          {{"offset", F, "n 18 h w"}},
          {"grid", F, "9 n h w 2"},
          {},
          [](const Call& c) {
            return deblur_cuda_sampling_grid(c.floats(0), static_cast<float*>(c.output),
                                             c.size('n'), c.size('h'), c.size('w'), c.stream);
          }};
}

Op top_pixels() {
  return {"TopPixels",
          {{"scores", F, "n 1 h w"}},
          {"index", I, "n h*w/r/r"},
          {{"ratio", 'r', {}}},
          [](const Call& c) {
            const int64_t pixels = c.size('h') * c.size('w');
            return deblur_cuda_top_pixels(c.floats(0), static_cast<int64_t*>(c.output),
                                          c.size('n'), pixels,
                                          pixels / (c.size('r') * c.size('r')), c.stream);
          }};
}

// clang-format on

}  // namespace

const std::vector<Op>& ops() {
  static const std::vector<Op> all = {
      deform_conv2d(),
      deform_conv2d_at(),
      dynamic_filter("DynamicFilter3", 3),
      dynamic_filter("DynamicFilter5", 5),
      local_mean("LocalMean12", 12),
      local_mean("LocalMean192", 192),
      local_mean("LocalMean24", 24),
      local_mean("LocalMean3", 3),
      local_mean("LocalMean384", 384),
      local_mean("LocalMean48", 48),
      local_mean("LocalMean6", 6),
      local_mean("LocalMean96", 96),
      motion_deform_conv(),
      pixel_gather(),
      pixel_scatter(),
      pruned_conv(),
      sampling_grid(),
      selective_scan(),
      top_pixels(),
  };
  return all;
}

}  // namespace deblur_tensorrt
