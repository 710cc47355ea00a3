"""Draw the picture of the README: a photo restored by PyTorch and ONNX Runtime, and the difference.

python bench/parity_picture.py FILE.onnx PHOTO OUT.jpg
"""

from __future__ import annotations

import numpy as np
from pictures import arguments, save_sheet

from deblur_export.artifact import read_artifact
from deblur_export.export.images.cases import Case
from deblur_export.export.images.photo_file import read_photo
from deblur_export.export.parity.report_figures import heat_map
from deblur_export.export.parity.verify import reference_model, verify


def main() -> None:
    file, photo, out = arguments("FILE.onnx", "PHOTO", "OUT.jpg")
    artifact = read_artifact(file)
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
    save_sheet([panels], out)
    print(f"{out}: {report.verdict} {report.reference} vs {report.candidate}")


if __name__ == "__main__":
    main()
