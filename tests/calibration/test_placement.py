"""What of a graph may become int8: first and last layers, positions, decisions, paddings."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from deblur_export.calibration.placement import (
    DESCRIPTOR,
    FIRST,
    LAST,
    LOPSIDED,
    placement,
)
from deblur_export.export.pipeline import ExportOptions
from deblur_export.plugins.parameters import DECIDES, POSITIONS
from tests.conftest import Exported


def test_m2aenet_heads_of_offsets_and_mask_are_never_quantized(exported: Exported) -> None:
    places = placement(onnx.load(exported("m2aenet").path))
    assert places.never["motion_analyzer.flow/Conv"] == POSITIONS
    for layer in ("embed.0", "embed.3", "head.0", "head.2", "head.4"):
        assert places.never[f"mask_predictor.{layer}/MatMul"] == DECIDES
    assert places.never["intro/Conv"] == FIRST
    assert places.never["ending/Conv"] == LAST
    assert places.never["encoders.0.0.sca.1/Conv"] == DESCRIPTOR
    assert "encoders.0.0.conv2/Conv" in places.macs
    assert not set(places.macs) & set(places.never)


@pytest.mark.parametrize("name", ["algnet", pytest.param("dhnet", marks=pytest.mark.slow)])
def test_most_convolutions_of_networks_with_reshapes_may_become_int8(
    name: str, exported: Exported
) -> None:
    """Sizes are computed in files of dynamic size."""
    model = onnx.load(exported(name, options=ExportOptions()).path)
    places = placement(model)
    convs = {node.name for node in model.graph.node if node.op_type == "Conv"}
    assert sum(macs for node, macs in places.macs.items() if node in convs) > 0.85 * places.total
    assert places.never["ending/Conv"] == LAST


def test_padding_at_one_end_keeps_a_convolution_out() -> None:
    convs = "".join(
        f"y{i} = Conv<pads = {pads}>({source}, w)\n"
        for i, (source, pads) in enumerate(
            [("x", [1] * 4), ("y0", [2, 1, 0, 1]), ("y1", [1] * 4), ("y2", [1] * 4)]
        )
    )
    places = placement(chain(convs))
    assert places.never == {"n0": FIRST, "n1": LOPSIDED, "n3": LAST}
    assert [site.node for site in places.sites] == ["n2"]


def test_sizes_make_no_layer_the_first_or_the_last() -> None:
    """The shapes of the input and of a feature, in the middle of a graph."""
    convs = """
        y0 = Conv<pads = [1, 1, 1, 1]>(x, w)
        like_input = Shape(x)
        z0 = Reshape(y0, like_input)
        y1 = Conv<pads = [1, 1, 1, 1]>(z0, w)
        y2 = Conv<pads = [1, 1, 1, 1]>(y1, w)
        like_feature = Shape(y1)
        z2 = Reshape(y2, like_feature)
        last = Conv<pads = [1, 1, 1, 1]>(z2, w)
        y3 = Reshape(last, like_feature)
    """
    places = placement(chain(convs))
    assert places.never == {"n0": FIRST, "n7": LAST}
    assert [site.node for site in places.sites] == ["n3", "n4"]


def chain(nodes: str) -> onnx.ModelProto:
    """The image x through nodes n0, n1, ... to y3; w is a 3x3 weight."""
    header = (
        '<ir_version: 9, opset_import: ["": 18]> g (float[n, 3, h, w] x) => (float[n, 3, h, w] y3)'
    )
    model = onnx.parser.parse_model(f"{header} <float[3, 3, 3, 3] w> {{ {nodes} }}")
    weight = np.ones((3, 3, 3, 3), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    for i, node in enumerate(model.graph.node):
        node.name = f"n{i}"
    return model
