"""From a checkpoint to restored photos in Python.

python examples/python_api.py net.pth photos restored
"""

from __future__ import annotations

import sys
from pathlib import Path

import deblur_export


def main(weights: str, photos: str, folder: str) -> None:
    model = deblur_export.load_model(weights=weights)
    artifact = deblur_export.export_onnx(model, "net.onnx")
    report = deblur_export.verify(artifact, model, images=photos, html="parity.html")
    print(report.verdict)
    if not report.passed:
        sys.exit(1)
    session = deblur_export.open_session(artifact)
    Path(folder).mkdir(exist_ok=True)
    for photo in sorted(Path(photos).iterdir()):
        for note in session.restore_file(photo, Path(folder) / f"{photo.stem}.png"):
            print(f"{photo}: {note}")


if __name__ == "__main__":
    main(*sys.argv[1:])
