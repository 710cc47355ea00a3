"""Converts a PyTorch network to one ONNX file with its custom ops as model-local functions."""

from __future__ import annotations

import contextlib
import copy
import logging
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import onnx
import onnx_ir as ir
import onnxscript
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.version_converter import convert_version
from torch import nn

from deblur_export import __version__
from deblur_export.artifact import METADATA_KEY, Artifact, sidecar_path
from deblur_export.atomic import atomic_path
from deblur_export.engine_record import FixedShape
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.capture import Dimension, capture, capture_again
from deblur_export.export.decompose import replacing_by_node
from deblur_export.export.graph import message_of
from deblur_export.export.graph_folds.fold import Progress, fold, folded_weights
from deblur_export.export.module_outputs import module_outputs
from deblur_export.export.own_ops import with_own_ops
from deblur_export.export.pairs.rewrite import without_complex_numbers
from deblur_export.export.passes.attach_functions import attach_functions
from deblur_export.export.passes.convolve_projections import convolve_projections
from deblur_export.export.passes.decompose_layer_norm import decompose_layer_norm
from deblur_export.export.passes.forget_dynamic_shapes import forget_dynamic_shapes
from deblur_export.export.passes.name_windows import name_windows
from deblur_export.export.passes.pad_and_crop import pad_and_crop
from deblur_export.export.passes.rename import rename
from deblur_export.export.passes.share_sampling_grid import share_sampling_grid
from deblur_export.export.passes.split_gates import split_gates
from deblur_export.export.passes.strip_metadata import strip_metadata
from deblur_export.export.translations import TRANSLATIONS
from deblur_export.manifest import Manifest
from deblur_export.manifest_blocks import PassReport
from deblur_export.models.image_spec import ImageSpec
from deblur_export.plugins.function_body import DOMAIN, VERSION
from deblur_export.plugins.ops import OPS
from deblur_export.target import TARGETS, TargetName

TRACED_OPSET = 18  # the newest opset that the torch exporter writes without a conversion


def without_padding(net: nn.Module) -> nn.Module:
    """The network with `forward_padded` as its forward: the exporter only sees sizes that are
    multiples of the network's size multiple."""
    core = copy.copy(net)
    forward = cast(Any, type(net)).forward_padded
    core.forward = types.MethodType(forward, core)
    return core


@dataclass(frozen=True)
class Traced:
    """A network as a graph, which is the same for every target.

    Attributes:
        graph: has the float32 input `image` [N, C, H, W] and the output `restored` [N, C, H, W];
            custom ops have no function bodies yet.
        free: the dimensions of the input that may have any size.
        notes: why the other dimensions are fixed, where they were not asked to be; one line each.
        reports: of the folds of the captured graph.
    """

    graph: ir.Model
    free: tuple[Dimension, ...]
    notes: tuple[str, ...]
    reports: tuple[PassReport, ...] = ()


def to_onnx(
    net: nn.Module, images: ImageSpec, target: TargetName, shape: FixedShape | None
) -> ir.Model:
    """Apply `trace`, then `lower`."""
    return lower(trace(net, images, shape).graph, target)


def trace(
    net: nn.Module,
    images: ImageSpec,
    shape: FixedShape | None,
    folds: bool = False,
    progress: Progress = lambda step: None,
) -> Traced:
    """Capture a network that has `forward_padded`, and translate it to ONNX.

    Args:
        net: a float32 network in eval mode.
        images: which images it accepts; padding them becomes part of the graph.
        shape: fixed (N, C, H, W), or None for as many free dimensions as the network allows.
        folds: whether the captured graph is folded; see `graph_folds`.
        progress: called with a line of text for each step.

    Raises:
        CheckFailedError, DeblurExportError: as `capture`, and a fold changed the output.
    """
    fixed = None
    if shape is not None:
        fixed = (*shape[:2], *images.padded(*shape[2:]))
    core = without_padding(net)
    captured = capture(core, images, fixed)
    reports: list[PassReport] = []
    if folds:
        captured, reports = fold(captured, images, progress=progress)
    progress("translating to ONNX")
    without_complex_numbers(captured.program)
    table = {
        spec.torch_op: onnxscript.values.Op(
            onnxscript.values.Opset(DOMAIN, VERSION), spec.name, spec.schema()
        )
        for spec in OPS.values()
        if spec.torch_op is not None
    }
    source = with_own_ops(captured.program)

    def translated() -> torch.onnx.ONNXProgram | None:
        return torch.onnx.export(
            source,
            (),
            dynamo=True,
            opset_version=TRACED_OPSET,
            custom_translation_table={**table, **TRANSLATIONS},
            dynamic_shapes=(captured.dynamic,) if captured.dynamic else None,
            input_names=["image"],
            output_names=["restored"],
            verbose=False,
        )

    with _quiet():
        try:
            with replacing_by_node(source):
                program = translated()
        except torch.onnx.errors.OnnxExporterError:  # of an operator that only a trace gets rid of
            program = translated()
    assert program is not None
    model = program.model
    assert program.exported_program is not None
    rename(model, module_outputs(core, program.exported_program, captured.shape))
    strip_metadata(model)
    _require_free(model, captured.free)
    if "height" in captured.free:
        pad_and_crop(model, images, ("height", "width"))
    elif shape is not None and captured.shape != shape:
        pad_and_crop(model, images, (shape[2], shape[3]))
    model.producer_name, model.producer_version = "deblur-export", __version__
    return Traced(model, captured.free, captured.notes, tuple(reports))


def traced_weights(
    net: nn.Module, images: ImageSpec, free: tuple[Dimension, ...], shape: FixedShape
) -> list[torch.Tensor]:
    """The float32 weights of the graph that `trace` gives with `folds`.

    Args:
        net, images: as for `trace`.
        free: the free dimensions that it found.
        shape: (N, C, H, W) if nothing is free.
    """
    shape = (*shape[:2], *images.padded(*shape[2:]))
    return folded_weights(capture_again(without_padding(net), images, free, shape))


def _require_free(model: ir.Model, free: tuple[Dimension, ...]) -> None:
    """Raise CheckFailedError if the translation fixed a size that the capture left free."""
    shape = model.graph.inputs[0].shape
    assert shape is not None
    sizes = dict(zip(("batch", "channels", "height", "width"), shape, strict=True))
    fixed = [name for name in free if isinstance(sizes[name], int)]
    if fixed:
        raise CheckFailedError(
            f"the translation to ONNX fixed {', '.join(fixed)}, which the network leaves free; "
            "export with --shape"
        )


def remove_unused_nodes(model: ir.Model) -> None:
    """Remove nodes whose outputs are not used, in place."""
    RemoveUnusedNodesPass()(model)


# The graph passes that a target may name; each changes a graph in place.
PASSES: Mapping[str, Callable[[ir.Model], object]] = {
    graph_pass.__name__: graph_pass
    for graph_pass in (
        share_sampling_grid,
        decompose_layer_norm,
        convolve_projections,
        split_gates,
        remove_unused_nodes,
    )
}


def lower(model: ir.Model, target: TargetName) -> ir.Model:
    """A copy of a traced graph in the opset and form of `target`, with the function bodies of its
    custom ops."""
    model, form = model.clone(), TARGETS[target]
    if form.opset != TRACED_OPSET:
        convert_version(model, form.opset)
    for name in form.passes:
        PASSES[name](model)
    name_windows(model)
    attach_functions(model, target)
    forget_dynamic_shapes(model)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's log messages and warnings, which are about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def save(model: ir.Model, path: Path, manifest: Manifest) -> Artifact:
    """Check the model and write it with its manifest inside and beside it, completely or not at
    all.

    Args:
        model: the manifest is added to its metadata, and its graph gets the name of the network.
        path: the .onnx file to write.
        manifest: the manifest of this file; the opset is that of the model.

    Raises:
        DeblurExportError: the ONNX checker or strict shape inference finds an error, or the file
            cannot be written.
    """
    manifest = manifest.derived(opset=model.opset_imports[""])
    model.graph.name = manifest.model.stem
    model.metadata_props[METADATA_KEY] = manifest.to_json()
    proto = message_of(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise DeblurExportError(f"the exported graph is not valid ONNX: {error}") from error
    sidecar_path(path).unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    return Artifact(path, manifest).recorded()
