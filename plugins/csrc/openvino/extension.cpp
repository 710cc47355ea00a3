// libdeblur_openvino.so: the custom ops of domain `deblur` for OpenVINO.
//
//   core.add_extension("libdeblur_openvino.so"); model = core.read_model("network.onnx")
#include <openvino/core/version.hpp>

#include "extension.h"

#define DEBLUR_TEXT_OF(x) #x
#define DEBLUR_TEXT(x) DEBLUR_TEXT_OF(x)

// plugins/libraries/openvino.py reads this text from the file, without loading the library, to find
// one that was made for the OpenVINO at hand.
extern "C" DEBLUR_API const char deblur_openvino_made_for[];
const char deblur_openvino_made_for[] =
    "deblur ops " DEBLUR_TEXT(DEBLUR_CPU_VERSION) " for OpenVINO " DEBLUR_TEXT(
        OPENVINO_VERSION_MAJOR) "." DEBLUR_TEXT(OPENVINO_VERSION_MINOR) "." DEBLUR_TEXT(OPENVINO_VERSION_PATCH);

namespace deblur_openvino {

namespace {

Extensions extensions() {
  Extensions list;
  add_neural_ops(list);
  add_pixel_ops(list);
  return list;
}

}  // namespace

}  // namespace deblur_openvino

OPENVINO_CREATE_EXTENSIONS(deblur_openvino::extensions())
