"""What the user should know of an adopted file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from deblur_export.errors import DeblurExportError
from deblur_export.export.adopt.ends import (
    BYTES,
    UNIT,
    Range,
)
from deblur_export.export.adopt.examine import Given, Probed
from deblur_export.export.adopt.runs import Runs
from deblur_export.export.adopt.source import Source, has_half
from deblur_export.onnx_reading import first_line
from deblur_export.shown import shown

RANGES: tuple[Range, ...] = (UNIT, (-1.0, 1.0), BYTES)
ALIKE = 20.0  # dB between image and result, from which a range is believed


def notes_on(source: Source, probed: Probed, given: Given) -> Iterator[str]:
    if has_half(source.proto):
        yield (
            "its float16 numbers are float32 numbers of the same values in the adopted file; "
            "--precision fp16 rounds again"
        )
    for domain, names in source.domains.items():
        yield (
            f"{shown(', '.join(names))} of {shown(domain)} "
            f"{'is' if len(names) == 1 else 'are'} known to ONNX Runtime and to few others: "
            "OpenVINO and TensorRT will refuse the file"
        )
    if probed.images.field is None and probed.shape[2] == "height":
        yield "an output pixel depends on the whole image, as far as was seen: tiles may show seams"
    if given.range is None and probed.ends.dtype != "uint8":
        yield from _doubts(source, probed)


def _doubts(source: Source, probed: Probed) -> Iterator[str]:
    """Whether the result resembles the image much more in another range than in the assumed."""
    if probed.images.scale != 1:
        return
    h, w = probed.sent.shape[2:]
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    smooth = np.asarray(0.5 + 0.4 * np.sin(5 * y + 3 * x), np.float32)
    sent = np.ascontiguousarray(np.broadcast_to(smooth, probed.sent.shape))
    alike = {}
    for own in RANGES:
        ends = dataclasses.replace(probed.ends, range=own, output_range=own)
        try:
            found = Runs(source.float32, source.path, ends).restored(sent)
        except DeblurExportError as error:
            yield f"the range was not tried: {first_line(error)}"
            return
        alike[own] = -10 * math.log10(float(np.mean((sent - found) ** 2)) or 1e-30)
    best = max(alike, key=lambda own: alike[own])
    assumed = alike[probed.ends.range]
    if best != probed.ends.range and assumed < ALIKE < alike[best] - 6:
        yield (
            f"the result resembles the image ({alike[best]:.0f} dB) if values are in {best[0]:g}.."
            f"{best[1]:g}, and not ({assumed:.0f} dB) in the assumed {probed.ends.range[0]:g}.."
            f"{probed.ends.range[1]:g}: perhaps it wants --range {best[0]:g},{best[1]:g}"
        )
