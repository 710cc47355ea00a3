"""Exports a loaded network to an ONNX artifact, without a special case for any network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
import torch

from deblur_export import __version__
from deblur_export.artifact import Artifact
from deblur_export.engine_record import FixedShape
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.behaviour import check_behaviour, check_module, notes_on_statistics
from deblur_export.export.capture import sample_shape
from deblur_export.export.choices import notes_on_choices
from deblur_export.export.images.cases import random_cases
from deblur_export.export.precision.ranges import HeadroomRule, nothing_known, too_close
from deblur_export.export.precision.rescale import reports as rescale_reports
from deblur_export.export.precision.rescale import rescaled
from deblur_export.export.precision.typed import typed
from deblur_export.export.reparam.prepare import Progress, prepare
from deblur_export.export.tile_check import checked_tile
from deblur_export.export.to_onnx import Traced, lower, save, trace
from deblur_export.export.translation_check import translation_failure
from deblur_export.image_shape import Shape, enlarged
from deblur_export.manifest import Manifest
from deblur_export.manifest_blocks import Fact, Input, Output, PassReport, Tile, Weights
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.models.decisions import decisions
from deblur_export.models.image_spec import ImageSpec
from deblur_export.plugins.function_body import DOMAIN
from deblur_export.precision import GraphPrecision
from deblur_export.target import DEFAULT, TARGETS, TargetName

UNIT = (0.0, 1.0)  # range of images


@dataclass(frozen=True)
class ExportOptions:
    """Options of an ONNX export.

    Attributes:
        target: for which the graph is made.
        shape: fixed (N, C, H, W); None for dynamic batch, height and width.
        reparam: whether the exact folds are applied.
        precision: the precision of the graph.
        headrooms: tells which tensors are close to the largest float16; in fp16 they stay float32.
        rescale: whether residual streams that exceed float16 are divided by a power of two.
    """

    target: TargetName = DEFAULT
    shape: FixedShape | None = None
    reparam: bool = True
    precision: GraphPrecision = "fp32"
    headrooms: HeadroomRule = nothing_known
    rescale: bool = False


def default_path(model: LoadedModel, options: ExportOptions) -> Path:
    """The default file name: `m2aenet_base.onnx`, or `m2aenet_base_ort_fp16.onnx` for a target and
    a precision other than the default."""
    suffix = TARGETS[options.target].suffix
    suffix += "" if options.precision == "fp32" else f"_{options.precision}"
    return Path(f"{model.identity.stem}{suffix}.onnx")


def export_onnx(
    model: LoadedModel, options: ExportOptions, path: Path, progress: Progress = lambda step: None
) -> Artifact:
    """Reparameterize, export, check and write a network, with its manifest.

    Raises:
        CheckFailedError: a fold changed the network's output.
        DeblurExportError: the path is not a writable .onnx file.
    """
    if path.suffix != ".onnx":
        raise DeblurExportError(f"{path}: the output must end in .onnx")
    if not path.parent.is_dir():
        raise DeblurExportError(f"{path.parent}: no such folder; create it first")
    return write_onnx(model, options, trace_model(model, options, progress), path, progress)


@dataclass(frozen=True)
class TracedModel:
    """The graph of a network, which is the same for every target, reports of the folds that were
    applied before tracing, why dimensions are fixed that were not asked to be, and what tiling has
    to respect."""

    graph: ir.Model
    reports: list[PassReport]
    notes: tuple[str, ...]
    tile: Tile


def trace_model(
    model: LoadedModel, options: ExportOptions, progress: Progress = lambda step: None
) -> TracedModel:
    """Reparameterize and trace a network; the result does not depend on `options.target`.

    Raises:
        CheckFailedError: a fold changed the network's output.
        DeblurExportError: `options.shape` has other channels than the network.
    """
    check_channels(model, options.shape)
    progress("checking the network")
    check_module(model.net)
    _, channels, height, width = options.shape or sample_shape(("height", "width"), model.images)
    check_behaviour(model.net, (1, channels, height, width))
    net, reports = prepare(model, options.reparam, progress)
    progress("capturing the network and checking the capture")
    traced = translated(net, model.images, options.shape, options.reparam, progress)
    tile, on_tiles = checked_tile(model)
    choices = () if model.foreign is None else notes_on_choices(traced.graph, decisions(net))
    notes = (*notes_on_statistics(model.net), *traced.notes, *choices, *on_tiles)
    for note in notes:
        progress(note)
    return TracedModel(traced.graph, [*reports, *traced.reports], notes, tile)


def translated(
    net: torch.nn.Module,
    images: ImageSpec,
    shape: FixedShape | None,
    folds: bool = False,
    progress: Progress = lambda step: None,
) -> Traced:
    """`trace`, and the graph compared with the network. If it follows the network at the captured
    size only, it is made for a fixed size, and a note says so.

    Raises:
        CheckFailedError: the graph of a fixed size computes something else than the network.
    """
    traced = trace(net, images, shape, folds, progress)
    progress("comparing the graph with the network")
    fixed = shape or (None if traced.free else sample_shape((), images))
    failure = translation_failure(traced.graph, net, images, traced.free, fixed)
    if failure is None:
        return traced
    if fixed is not None:
        raise CheckFailedError(
            f"the ONNX graph is not the network: {failure}; please report this network"
        )
    note = f"sizes cannot be free: the ONNX graph is not the network, {failure}"
    again = translated(net, images, sample_shape((), images), folds, progress)
    return replace(again, notes=(*traced.notes, note))


def check_channels(model: LoadedModel, shape: FixedShape | None) -> None:
    """Check that a fixed shape has the channels of the network.

    Raises:
        DeblurExportError: it has others.
    """
    channels = model.images.channels
    if shape is not None and shape[1] != channels:
        given, wanted = (
            "x".join(map(str, (shape[0], count, *shape[2:]))) for count in (shape[1], channels)
        )
        raise DeblurExportError(
            f"the images of {model.title} have {channels} channel{'s' * (channels > 1)}, not "
            f"{shape[1]} as in {given}; use {wanted}"
        )


def write_onnx(
    model: LoadedModel,
    options: ExportOptions,
    traced: TracedModel,
    path: Path,
    progress: Progress = lambda step: None,
) -> Artifact:
    """Lower a traced model to its target, check it and write it, with its manifest.

    Raises:
        DeblurExportError: the graph is not valid, a weight exceeds the range of the precision, or
            the file cannot be written.
        CheckFailedError: too small a fraction of the graph is in the precision.
    """
    graph = lower(traced.graph, options.target)
    ops = sorted(name for domain, name, _ in graph.functions if domain == DOMAIN)
    headrooms, passes = options.headrooms(graph), list(traced.reports)
    if options.rescale:
        progress("rescaling")
        case = random_cases(_shape(graph))[0]
        result = rescaled(traced.graph, options.target, headrooms, case)
        graph, headrooms = result.graph, result.headrooms(headrooms)
        passes += rescale_reports(result, passes[-1] if passes else None)
    manifest = describe(model, options, passes, ops, _shape(graph), traced)
    if options.precision != "fp32":
        progress(f"casting to {options.precision}")
        graph, facts = typed(graph, options.precision, options.target, too_close(headrooms))
        manifest = manifest.derived(
            precision=options.precision, high_precision=options.precision, precision_map=facts
        )
    progress("checking and writing")
    return save(graph, path, manifest)


def describe(
    model: LoadedModel,
    options: ExportOptions,
    reports: list[PassReport],
    ops: list[str],
    shape: Shape,
    traced: TracedModel,
) -> Manifest:
    """The manifest of a float32 file, with notes on the network; it depends on nothing but the
    arguments and the versions of the libraries."""
    import onnx
    import onnxscript

    images = model.images
    return Manifest(
        tools={
            "deblur_export": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxscript": onnxscript.__version__,
        },
        model=model.identity,
        weights=Weights(model.weights, model.sha256, model.key or None, model.ema),
        target=options.target,
        opset=TARGETS[options.target].opset,
        precision="fp32",
        high_precision="fp32",
        custom_ops=tuple(ops),
        input=described_input(images, shape),
        output=described_output(images, shape),
        free=tuple(size for size in shape if isinstance(size, str)),
        facts={**model.facts, **({"notes": Fact(traced.notes, "found")} if traced.notes else {})},
        tile=traced.tile,
        reparameterized=options.reparam,
        passes=tuple(reports),
    )


def described_input(images: ImageSpec, shape: Shape) -> Input:
    """The input of every float32 file, in a manifest."""
    return Input(
        name="image",
        shape=shape,
        channels=images.channels,
        range=UNIT,
        multiple=images.multiple,
        minimum=images.minimum,
        square=images.square,
        dtype="float32",
        layout="NCHW",
        colour="grey" if images.channels == 1 else "RGB",
        padding=images.padding,
    )


def described_output(images: ImageSpec, shape: Shape) -> Output:
    """The output of every float32 file with an input of `shape`, in a manifest."""
    return Output(
        name="restored",
        index=0,
        scale=images.scale,
        range=UNIT,
        shape=enlarged(shape, images.scale),
        dtype="float32",
    )


def _shape(graph: ir.Model) -> Shape:
    """The shape of the input: numbers, and names of dimensions of any size."""
    sizes = graph.graph.inputs[0].shape
    assert sizes is not None
    n, c, h, w = (size if isinstance(size, int) else str(size) for size in sizes)
    return n, c, h, w  # type: ignore[return-value]
