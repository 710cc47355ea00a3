"""Runs a graph on ONNX Runtime and OpenVINO, and has TensorRT for RTX parse it, without a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor

from deblur_export.export.engines import nvinfer
from deblur_export.export.graph import inlined, message_of
from deblur_export.export.runtimes import nvinfer_log
from deblur_export.export.to_onnx import lower, trace
from deblur_export.models.image_spec import ImageSpec
from deblur_export.plugins.libraries.openvino import shared_core
from deblur_export.target import TARGETS
from tests import needs
from tests.export.foreign import Padded

Shapes = tuple[tuple[int, int, int, int], ...]


def assert_every_target_is(
    net: Padded,
    images: ImageSpec,
    shapes: Shapes,
    fixed: tuple[int, int, int, int] | None = None,
    tolerance: float = 1e-5,
) -> dict[str, ir.Model]:
    """Trace a network and compare the graph of each target with the network in float64.

    ONNX Runtime runs every target, OpenVINO the one made for it, and TensorRT for RTX parses its
    own, where they are installed.

    Args:
        shapes: of the images, which may need padding.
        fixed: the shape of the graph; None for free sizes.
        tolerance: of the difference, relative to the largest output.

    Returns:
        The graphs by target.
    """
    traced = trace(net, images, fixed).graph
    graphs = {target: lower(traced, target) for target in TARGETS}
    exact = net.double()
    for shape in shapes:
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        height, width = images.padded(*shape[2:])
        padded = torch.nn.functional.pad(image, (0, width - shape[3], 0, height - shape[2]))
        with torch.no_grad():
            expected = exact(padded.double())[..., : shape[2], : shape[3]]
        for target, graph in graphs.items():
            assert_close(run_onnxruntime(graph, image), expected, tolerance, f"{target} {shape}")
        if needs.OPENVINO.installed():
            found = run_openvino(graphs["openvino"], image)
            assert_close(found, expected, tolerance, f"OpenVINO {shape}")
    if needs.RTX.installed():
        parse_rtx(graphs["rtx"])
    return dict(graphs)


def assert_close(found: Any, expected: Tensor, tolerance: float, what: str) -> None:
    error = np.abs(found - expected.numpy()).max() / expected.abs().max().item()
    assert error <= tolerance, f"{what}: {error:.1e}"


def run_onnxruntime(graph: ir.Model, image: Tensor) -> Any:
    session = ort.InferenceSession(
        message_of(graph).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": image.numpy()})[0]


def run_openvino(graph: ir.Model, image: Tensor) -> Any:
    """As stock OpenVINO does, with the bodies in place of custom ops."""
    core = shared_core()
    model = core.read_model(model=inlined(message_of(graph)).SerializeToString())
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return core.compile_model(model, "CPU", settings)(image.numpy())[0]


def parse_rtx(graph: ir.Model) -> Any:
    """What TensorRT for RTX makes of it.

    Raises:
        DeblurExportError: its parser does not support the graph.
    """
    import tensorrt_rtx as trt

    data = message_of(graph).SerializeToString()
    return nvinfer.parse(trt, data, nvinfer_log.message_log(trt), "graph")
