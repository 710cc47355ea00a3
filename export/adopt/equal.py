"""The adopted graph, proved equal to the original."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.adopt.adapt import IMAGE, RESTORED, adapt
from deblur_export.export.adopt.ends import (
    Ends,
    constant_inputs,
)
from deblur_export.export.adopt.examine import Probed
from deblur_export.export.adopt.runs import Image, Runs, image
from deblur_export.export.adopt.source import Source, normalized
from deblur_export.export.graph import inner_values, message_of, with_outputs
from deblur_export.image_shape import Shape
from deblur_export.target import DEFAULT

TOLERANCE = 1e-6  # between the adopted graph and the original, relative to values of at least 1
SHAPES = ((64, 96), (33, 47), (121, 75), (5, 3))  # height and width of what they are compared on
FLOAT_TYPES = {"tensor(float)": ir.DataType.FLOAT, "tensor(double)": ir.DataType.DOUBLE}


def equal_model(source: Source, probed: Probed) -> tuple[ir.Model, tuple[str, ...]]:
    """The adopted graph in the opset of our files, or if that computes something else, in its own.

    Raises:
        CheckFailedError: it computes something else.
    """
    constants = constant_inputs(source.float32, probed.ends.values or {})
    reference = Runs(source.float32, source.path, probed.ends, plain=True)
    failure: CheckFailedError | None = None
    for convert in (True, False):
        try:
            model, notes = normalized(source, DEFAULT, convert)
        except DeblurExportError:
            if failure is not None:
                raise failure from None
            raise
        adapt(model, probed.ends, probed.images, probed.shape, constants)
        try:
            _check_equal(source, probed, reference, message_of(model))
        except CheckFailedError as error:
            failure = failure or error
            continue
        if failure is not None:
            notes = (
                *notes,
                f"stays in opset {source.opset}: converted, it computes something else",
            )
        return model, notes
    assert failure is not None
    raise failure


def _check_equal(source: Source, probed: Probed, reference: Runs, adopted: onnx.ModelProto) -> None:
    ends = Ends(IMAGE, RESTORED)
    try:
        runs = Runs(adopted, source.path, ends, plain=True)
        for sent in _cases(probed.shape):
            expected = reference.restored_any(sent, probed.images)
            found = runs.restored(sent)
            size = "x".join(map(str, sent.shape))
            if found.shape != expected.shape:
                raise CheckFailedError(
                    f"{source.path}: on an image of {size} the adopted graph gives {found.shape} "
                    f"instead of {expected.shape}; nothing was written"
                )
            error = float(np.abs(found - expected).max())
            if not error <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
                raise CheckFailedError(
                    f"{source.path}: on an image of {size} the adopted graph differs from the "
                    f"original by {error:.1e}; nothing was written"
                )
    except DeblurExportError as error:
        if isinstance(error, CheckFailedError):
            raise
        raise CheckFailedError(f"the adopted graph does not run: {error}") from error


def _cases(shape: Shape) -> Iterator[Image]:
    for seed, size in enumerate(SHAPES):
        n, c, h, w = shape
        if isinstance(h, int) and isinstance(w, int):
            size = (h, w)
            if seed > 1:
                return
        batch = n if isinstance(n, int) else 1 + seed % 2
        yield image((batch, c, *size), seed)


def type_values(model: ir.Model, path: Path) -> None:
    """Declare the types of all values, which ONNX cannot infer after operators that are not its
    own, by ONNX Runtime."""
    proto = message_of(model)
    names = [name for name in inner_values(proto) if name and name != RESTORED]
    runs = Runs(with_outputs(proto, names), path, Ends(IMAGE, RESTORED))
    types = {value.name: FLOAT_TYPES.get(value.type) for value in runs.session.get_outputs()}
    for node in model.graph:
        for value in node.outputs:
            kind = types.get(value.name or "")
            if value.dtype is None and kind is not None:
                value.type = ir.TensorType(kind)
