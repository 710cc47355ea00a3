"""The picture of the README: a photo through PyTorch and ONNX Runtime, and their difference.

python bench/parity_picture.py FILE.onnx PHOTO OUT.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deblur_export.export.cases import Case
from deblur_export.export.images import read_photo
from deblur_export.export.manifest import read_artifact
from deblur_export.export.report_figures import heat_map
from deblur_export.export.verify import reference_model, verify

SIDE = 320
CAPTION = 40


def main() -> None:
    artifact = read_artifact(Path(sys.argv[1]))
    photo, out = Path(sys.argv[2]), Path(sys.argv[3])
    image = np.ascontiguousarray(read_photo(photo).rgb.transpose(2, 0, 1)[None])
    model = reference_model(artifact)
    report = verify(artifact, model, [Case(photo.name, image)], with_images=True)
    case = report.cases[0]
    assert case.images is not None
    panels = [
        (case.images.input, "photo"),
        (case.images.reference, f"PyTorch, {model.title}, {model.weights}"),
        (case.images.candidate, "ONNX Runtime"),
        (heat_map(case.images.error), f"difference: {case.max_abs:.0e} at most (scale 1e-8..1)"),
    ]
    strip = Image.new("RGB", (SIDE * len(panels), SIDE + CAPTION), "white")
    font = ImageFont.load_default(15)
    draw = ImageDraw.Draw(strip)
    for position, (pixels, caption) in enumerate(panels):
        panel = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        strip.paste(panel, (position * SIDE, 0))
        draw.text((position * SIDE + 8, SIDE + 10), caption, "black", font=font)
    strip.save(out, quality=90)
    print(f"{out}: {report.verdict} {report.reference} vs {report.candidate}")


if __name__ == "__main__":
    main()
