"""Quantize an exported file to INT8 within a budget of 0.1 dB, and verify the result.

python examples/int8.py net.onnx photos
"""

from __future__ import annotations

import sys

import deblur_export


def main(file: str, photos: str) -> None:
    try:
        result = deblur_export.calibrate(file, images=photos, max_psnr_drop=0.1)
    except deblur_export.CheckFailedError as error:
        sys.exit(f"no block may become int8: {error}")
    report = deblur_export.verify(result.artifact)
    print(f"{result.artifact.path}: {report.verdict}")


if __name__ == "__main__":
    main(*sys.argv[1:])
