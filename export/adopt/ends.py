"""The ends of another exporter's graph: which input is the image, and how the graph wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError
from deblur_export.models.image_spec import CHANNELS
from deblur_export.shown import shown
from deblur_export.typed_json import FieldError, read_record

Axes = Literal["NCHW", "NHWC"]
Colour = Literal["RGB", "BGR"]
Range = tuple[float, float]
UNIT: Range = (0.0, 1.0)
BYTES: Range = (0.0, 255.0)
AXES: tuple[Axes, ...] = get_args(Axes)
# What NumPy calls the types that an image may have.
TYPES: Mapping[int, str] = {
    int(onnx.TensorProto.FLOAT): "float32",
    int(onnx.TensorProto.FLOAT16): "float16",
    int(onnx.TensorProto.DOUBLE): "float64",
    int(onnx.TensorProto.UINT8): "uint8",
}
Array = NDArray[Any]


@dataclass(frozen=True)
class Ends:
    """How a graph wants the image and gives the result, as the manifest keeps it.

    Attributes:
        input, output: their names.
        axes, output_axes: the order of their axes.
        range, output_range: of their values.
        colour: the order of the first three channels in both.
        dtype, output_dtype: their types, as NumPy calls them.
        values: what every element of each further input is, by name.
    """

    input: str
    output: str
    axes: Axes = "NCHW"
    output_axes: Axes = "NCHW"
    range: Range = UNIT
    output_range: Range = UNIT
    colour: Colour = "RGB"
    dtype: str = "float32"
    output_dtype: str = "float32"
    values: Mapping[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `Model.arguments` of a manifest."""
        fields = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Ends:
        """What `as_dict` gave.

        Raises:
            DeblurExportError: it is something else.
        """
        try:
            return read_record(cls, dict(fields))
        except FieldError as error:
            raise DeblurExportError(
                f"not a manifest of an adopted file: model.arguments: {error}; adopt it again"
            ) from error

    def fed(self, image: NDArray[np.float32]) -> Array:
        """What the graph gets for an image [N, C, H, W], RGB in 0..1."""
        low, high = self.range
        if self.colour == "BGR":
            image = image[:, flipped(image.shape[1])]
        values: Array = image
        if self.range != UNIT:
            values = image * np.float32(high - low) + np.float32(low)
        if self.axes == "NHWC":
            values = values.transpose(0, 2, 3, 1)
        if self.dtype == "uint8":
            values = np.clip(np.rint(values), 0, 255)
        return np.ascontiguousarray(values.astype(self.dtype))

    def restored(self, values: Array) -> NDArray[np.float32]:
        """The restored image [N, C, H, W], RGB in about 0..1, for what the graph gave."""
        low, high = self.output_range
        image = values.astype(np.float32)
        if self.output_axes == "NHWC":
            image = image.transpose(0, 3, 1, 2)
        if self.output_range != UNIT:
            image = (image - np.float32(low)) / np.float32(high - low)
        if self.colour == "BGR":
            image = image[:, flipped(image.shape[1])]
        return np.ascontiguousarray(image)


@dataclass(frozen=True)
class ImageInput:
    """The input that is the image. Sizes are None where they are free."""

    name: str
    dtype: str
    axes: Axes
    axes_by: Literal["found", "given", "assumed"]
    channels: int
    batch: int | None
    size: tuple[int, int] | None


def flipped(channels: int) -> list[int]:
    """RGB to BGR and back; an alpha channel stays the last."""
    return [2, 1, 0, *range(3, channels)] if channels > 1 else [0]


def free_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs without a value in the file."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def image_input(
    model: onnx.ModelProto,
    name: str | None,
    axes: Axes | None,
    channels: int | None,
    values: Mapping[str, float],
) -> ImageInput:
    """Find the input that is the image.

    Args:
        model: the graph.
        name, axes, channels: where they are known.
        values: the further inputs that have a value.

    Raises:
        DeblurExportError: there is none, or several; its channels are free or none of `CHANNELS`;
            one side is fixed and the other free; another input has no value.
    """
    inputs = {value.name: value for value in free_inputs(model)}
    listed = ", ".join(f"{shown(n)} {described(v)}" for n, v in inputs.items()) or "none"
    for key in (*values, *([name] if name is not None else [])):
        if key not in inputs:
            raise DeblurExportError(f"there is no input {shown(key)}; there are: {listed}")
    images = [n for n, v in inputs.items() if n not in values and _may_be_image(v)]
    if name is None and not images:
        raise DeblurExportError(
            f"none of its inputs is an image of 4 dimensions and a floating-point type or uint8: "
            f"{listed}"
        )
    if name is None and len(images) > 1:
        raise DeblurExportError(
            f"it has several inputs that may be the image: {listed}; name it with --input-name, "
            "and give the others a value with --set NAME=VALUE"
        )
    chosen = inputs[images[0] if name is None else name]
    if not _may_be_image(chosen):
        raise DeblurExportError(f"its input {listed} is no image of 4 dimensions")
    others = [n for n in inputs if n != chosen.name and n not in values]
    if others:
        raise DeblurExportError(
            f"besides {shown(chosen.name)} it wants {shown(', '.join(others))}: give each a value "
            f"with --set {shown(others[0])}=VALUE"
        )
    return _image(chosen, axes, channels)


def _image(value: onnx.ValueInfoProto, axes: Axes | None, channels: int | None) -> ImageInput:
    sizes: list[int | None] = [None] * 4
    if value.type.tensor_type.HasField("shape"):
        sizes = [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
    by: Literal["found", "given", "assumed"] = "given" if axes else "found"
    if axes is None:
        first, last = sizes[1] in CHANNELS, sizes[3] in CHANNELS
        axes = "NHWC" if last and not first else "NCHW"
        if (not first and not last) or (first and last):
            by = "assumed"
    n, c, h, w = sizes if axes == "NCHW" else (sizes[0], sizes[3], sizes[1], sizes[2])
    text = f"{shown(value.name)} {described(value)}"
    if c is None and channels is None:
        raise DeblurExportError(
            f"the channels of its input {text} are free: give them with --channels 3, and "
            "--axes NHWC if they are the last axis"
        )
    if c is not None and channels not in (None, c):
        raise DeblurExportError(f"--channels {channels}: its input is {text}")
    if (c or channels) not in CHANNELS:
        known = " or ".join(map(str, CHANNELS))
        raise DeblurExportError(
            f"its input {text} has {c or channels} channels as {axes}; images have {known}; give "
            "--axes if the channels are another axis"
        )
    if (h is None) != (w is None):
        raise DeblurExportError(
            f"its input {text} has one side fixed and the other free: export it again with both "
            "free, or both fixed"
        )
    size = None if h is None or w is None else (h, w)
    dtype = TYPES[value.type.tensor_type.elem_type]
    return ImageInput(value.name, dtype, axes, by, c or channels or 3, n, size)


def _may_be_image(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    ranked = not tensor.HasField("shape") or len(tensor.shape.dim) == 4
    return tensor.elem_type in TYPES and ranked


def described(value: onnx.ValueInfoProto) -> str:
    """Type and shape of an input, for messages: "float32 [N, 3, ?, ?]"."""
    tensor = value.type.tensor_type
    known = {int(number): str(name).lower() for name, number in onnx.TensorProto.DataType.items()}
    kind: str = TYPES.get(tensor.elem_type) or known.get(tensor.elem_type, "of no type")
    if not tensor.HasField("shape"):
        return kind
    return f"{kind} [{', '.join(str(d.dim_value or d.dim_param or '?') for d in tensor.shape.dim)}]"


def constant_inputs(model: onnx.ModelProto, values: Mapping[str, float]) -> dict[str, Array]:
    """Arrays for the further inputs; sizes that are free are 1.

    Raises:
        DeblurExportError: an input has no shape or type for that.
    """
    arrays = {}
    for value in free_inputs(model):
        if value.name not in values:
            continue
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            raise DeblurExportError(f"--set {shown(value.name)}: this input has no shape")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        shape = [dim.dim_value or 1 for dim in tensor.shape.dim]
        arrays[value.name] = np.full(shape, values[value.name], dtype)
    return arrays


def output_ends(
    ends: Ends, name: str, array: Array, sent: Sequence[int]
) -> tuple[Ends, int] | None:
    """The ends with an output that is an image for one of `sent` [N, C, H, W], and its scale; None
    if it is none."""
    if array.ndim != 4 or array.dtype.name not in TYPES.values():
        return None
    n, c, h, w = sent
    for axes in dict.fromkeys((ends.axes, *AXES)):
        own = array.shape if axes == "NCHW" else tuple(array.shape[i] for i in (0, 3, 1, 2))
        if own[:2] != (n, c) or own[2] % h or own[3] % w or own[2] // h != own[3] // w:
            continue
        found = replace(ends, output=name, output_axes=axes, output_dtype=array.dtype.name)
        return found, own[2] // h
    return None
