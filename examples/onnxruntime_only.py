"""Restore one photo with an exported file, without deblur-export: ONNX Runtime, NumPy, Pillow.

python examples/onnxruntime_only.py net.onnx blurred.jpg restored.png
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime
from PIL import Image


def main(file: str, photo: str, result: str) -> None:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    rgb = np.asarray(Image.open(photo).convert("RGB"), np.float32) / 255  # [H, W, 3], 0..1
    image = rgb.transpose(2, 0, 1)[None]  # [1, 3, H, W]
    (restored,) = session.run(None, {session.get_inputs()[0].name: image})
    pixels = np.rint(255 * restored[0].transpose(1, 2, 0).clip(0, 1)).astype(np.uint8)
    Image.fromarray(pixels).save(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
