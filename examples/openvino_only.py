"""Restore one photo with an exported file and the native ops in OpenVINO, without deblur-export.

python examples/openvino_only.py net.onnx libdeblur_openvino.so blurred.jpg restored.png

`deblur-export plugins build` makes the library; it needs nothing of the package either. Pass - in
its place for a file without custom ops, such as one of NAFNet.
"""

from __future__ import annotations

import sys

import numpy as np
import openvino
from PIL import Image


def main(file: str, library: str, photo: str, result: str) -> None:
    core = openvino.Core()
    if library != "-":
        core.add_extension(library)
    # Without the hint OpenVINO computes in bf16 where the processor can.
    model = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rgb = np.asarray(Image.open(photo).convert("RGB"), np.float32) / 255  # [H, W, 3], 0..1
    request = model.create_infer_request()
    request.start_async({"image": rgb.transpose(2, 0, 1)[None]})
    request.wait()  # raises errors, which infer() loses where OpenVINO has one thread
    restored = request.get_output_tensor(0).data  # [1, 3, H, W]
    pixels = np.rint(255 * restored[0].transpose(1, 2, 0).clip(0, 1)).astype(np.uint8)
    Image.fromarray(pixels).save(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
