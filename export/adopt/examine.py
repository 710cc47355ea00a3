"""What is known of another exporter's file: what the user gave, what a run showed, and what is
assumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from deblur_export.engine_record import FixedShape
from deblur_export.errors import DeblurExportError
from deblur_export.export.adopt.ends import (
    BYTES,
    UNIT,
    Axes,
    Colour,
    Ends,
    ImageInput,
    Range,
    image_input,
)
from deblur_export.export.adopt.probe import (
    Sizes,
    batches,
    check_runs,
    find_output,
    probe_reach,
    probe_sizes,
)
from deblur_export.export.adopt.runs import Image, Runs, image
from deblur_export.export.adopt.source import Source
from deblur_export.image_shape import Shape
from deblur_export.manifest_blocks import Fact
from deblur_export.models.image_spec import SCALES, ImageSpec, Padding

Progress = Callable[[str], None]
By = Literal["given", "found", "assumed"]
LONGEST = 4096  # pixels, of a size multiple or a field that is given


@dataclass(frozen=True)
class Given:
    """What the user knows of a file; None is found out or assumed.

    Attributes:
        input, output: names of the image input and of the output that is the restored image.
        axes: order of the axes of the input.
        channels: of the image.
        range, output_range: of the values; the output's is that of the input if not given.
        colour: order of the channels.
        padding, multiple, scale, field: as in `ImageSpec`; the field may be "image", the whole.
        shape: a fixed shape of the new input.
        values: of further inputs by name.
    """

    input: str | None = None
    output: str | None = None
    axes: Axes | None = None
    channels: int | None = None
    range: Range | None = None
    output_range: Range | None = None
    colour: Colour | None = None
    padding: Padding | None = None
    multiple: int | None = None
    scale: int | None = None
    field: int | Literal["image"] | None = None
    shape: FixedShape | None = None
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Probed:
    """What is known of a file: how its graph wants images, which it accepts, the shape of the new
    input, whether a tile proved the field, and the image that was sent first."""

    ends: Ends
    images: ImageSpec
    shape: Shape
    proved: bool
    facts: Mapping[str, Fact]
    sent: Image


def check_given(given: Given) -> None:
    for name, own in (("range", given.range), ("output_range", given.output_range)):
        if own is not None and not (np.isfinite(own).all() and own[0] < own[1]):
            raise DeblurExportError(
                f"--{name.replace('_', '-')}: {own[0]:g} is not below {own[1]:g}"
            )
    if given.scale is not None and given.scale not in SCALES:
        raise DeblurExportError(f"--scale {given.scale}: not one of {', '.join(map(str, SCALES))}")
    radius = None if given.field == "image" else given.field
    for name, least, size in (("multiple", 1, given.multiple), ("field", 0, radius)):
        if size is not None and not least <= size <= LONGEST:
            raise DeblurExportError(f"--{name} {size}: not between {least} and {LONGEST} pixels")


def probe(source: Source, given: Given, progress: Progress) -> Probed:
    path, model = source.path, source.float32
    try:
        found = image_input(model, given.input, given.axes, given.channels, given.values)
        runs = Runs(model, path, _first_ends(found, given))
    except DeblurExportError as error:
        start = "" if str(error).startswith(str(path)) else f"{path}: "
        raise DeblurExportError(f"{start}{error}") from error
    found = _fixed(path, runs, found, given)
    progress("running it")
    ends, scale, sent = find_output(runs, found, given.output)
    if given.scale not in (None, scale):
        raise DeblurExportError(
            f"--scale {given.scale}: {path} gives an image {scale} times as high and wide"
        )
    ends = replace(ends, output_range=_output_range(ends, given))
    runs.ends = ends
    check_runs(runs, sent)
    progress("probing the sizes that it accepts")
    if found.size is not None:
        sizes = Sizes(1, 1, False, found.batch is None and batches(runs, found, found.size))
    else:
        sizes = probe_sizes(runs, found, scale, sent.shape[2], given.multiple)
    images = ImageSpec(
        sizes.multiple,
        given.padding or "zeros",
        None if given.field == "image" else given.field,
        found.channels,
        scale,
        sizes.minimum,
        sizes.square,
    )
    progress("probing how far an output pixel sees")
    reach = probe_reach(runs, images, found.batch or 1, found.size)
    images = replace(images, period=reach.period)
    if given.field is None:
        images = replace(images, field=reach.field)
    proved = reach.proved and given.field is None
    shape = _shape(found, sizes, given)
    known = facts(source, given, found, ends, images, shape, reach.proved)
    return Probed(ends, images, shape, proved, known, sent)


def _first_ends(found: ImageInput, given: Given) -> Ends:
    return Ends(
        found.name,
        "",
        found.axes,
        range=given.range or (BYTES if found.dtype == "uint8" else UNIT),
        colour=given.colour or "RGB",
        dtype=found.dtype,
        values=dict(given.values) or None,
    )


def _output_range(ends: Ends, given: Given) -> Range:
    if given.output_range is not None:
        return given.output_range
    return BYTES if ends.output_dtype == "uint8" else ends.range


def _fixed(path: Path, runs: Runs, found: ImageInput, given: Given) -> ImageInput:
    """The input with the size that was asked for, if the graph accepts it as it is.

    Raises:
        DeblurExportError: the file is made for another shape.
    """
    if given.shape is None:
        return found
    n, _, h, w = given.shape
    own = (found.batch or n, found.channels, *(found.size or (h, w)))
    if own != given.shape:
        raise DeblurExportError(
            f"--shape {'x'.join(map(str, given.shape))}: {path} is made for "
            f"{'x'.join(map(str, own))}"
        )
    try:
        runs.values(image(given.shape), runs.outputs)
    except DeblurExportError:
        return found  # padded to a size that it accepts
    return replace(found, batch=n, size=(h, w))


def _shape(found: ImageInput, sizes: Sizes, given: Given) -> Shape:
    if given.shape is not None:
        return given.shape
    batch = found.batch or ("batch" if sizes.batch else 1)
    return (batch, found.channels, *(found.size or ("height", "width")))


def facts(
    source: Source,
    given: Given,
    found: ImageInput,
    ends: Ends,
    images: ImageSpec,
    shape: Shape,
    proved: bool,
) -> dict[str, Fact]:
    def by(value: object, otherwise: By) -> By:
        return (
            "found"
            if value is None and otherwise == "found"
            else otherwise
            if value is None
            else "given"
        )

    bytes_in, bytes_out = ends.dtype == "uint8", ends.output_dtype == "uint8"
    sized = by(given.shape, "found")
    others = [f"{domain}::{name}" for domain, names in source.domains.items() for name in names]
    return {
        "input": Fact(ends.input, by(given.input, "found")),
        "output": Fact(ends.output, by(given.output, "found")),
        "axes": Fact(ends.axes, found.axes_by),
        "type": Fact(ends.dtype, "found"),
        "range": Fact(list(ends.range), by(given.range, "found" if bytes_in else "assumed")),
        "output_range": Fact(
            list(ends.output_range),
            by(given.output_range or given.range, "found" if bytes_out else "assumed"),
        ),
        "colour": Fact(
            ends.colour if found.channels > 1 else "grey",
            by(given.colour, "assumed") if found.channels > 1 else "found",
        ),
        "channels": Fact(images.channels, by(given.channels, "found")),
        "scale": Fact(images.scale, by(given.scale, "found")),
        "batch": Fact("any" if shape[0] == "batch" else shape[0], sized),
        "size": Fact("any" if shape[2] == "height" else f"{shape[3]}x{shape[2]}", sized),
        "multiple": Fact(images.multiple, by(given.multiple, "found")),
        "minimum": Fact(images.minimum, "found"),
        "square": Fact(images.square, "found"),
        "padding": Fact(images.padding, by(given.padding, "assumed")),
        "field": Fact(images.field, by(given.field, "found")),
        "period": Fact(images.tile_period, "found" if proved else "assumed"),
        "opset": Fact(source.opset, "found"),
        "other operators": Fact(others, "found"),
    }
