"""A graph that is not its network is never handed on, whatever the exporter wrote."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from deblur_export.errors import CheckFailedError
from deblur_export.export import pipeline
from deblur_export.export.to_onnx import Traced, trace
from deblur_export.export.translation_check import translation_failure
from deblur_export.models.image_spec import ImageSpec
from tests.export import traps

IMAGES = ImageSpec(8)


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return traps.Convolution().eval()


def bias_moved(traced: Traced, by: float) -> Traced:
    graph = traced.graph.clone()
    name = next(name for name in graph.graph.initializers if name.endswith("bias"))
    value = graph.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() + np.float32(by), name=name)
    return Traced(graph, traced.free, traced.notes)


def test_what_the_exporter_writes_passes(net: Any) -> None:
    net.forward = net.forward_padded  # no padding of its own
    traced = trace(net, IMAGES, (1, 3, 16, 24))
    assert translation_failure(traced.graph, net, IMAGES, (), (1, 3, 16, 24)) is None
    failure = translation_failure(bias_moved(traced, 0.1).graph, net, IMAGES, (), (1, 3, 16, 24))
    assert failure is not None and "at 1x3x16x24 it differs by" in failure


def test_a_graph_right_at_one_size_gets_that_size(
    net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(net: Any, images: ImageSpec, shape: Any, *rest: Any) -> Traced:
        traced = trace(net, images, shape, *rest)
        return bias_moved(traced, 0.1) if shape is None else traced

    monkeypatch.setattr(pipeline, "trace", faulty)
    traced = pipeline.translated(net, ImageSpec(1), None)
    assert traced.free == ()
    assert "sizes cannot be free: the ONNX graph is not the network" in traced.notes[-1]


def test_a_wrong_graph_of_a_fixed_size_is_refused(
    net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "trace", lambda *given: bias_moved(trace(*given), 0.1))
    with pytest.raises(CheckFailedError, match="the ONNX graph is not the network: at 1x3x8x8"):
        pipeline.translated(net, IMAGES, (1, 3, 8, 8))
