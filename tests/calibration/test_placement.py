"""Which nodes can be int8: first and last layers, positions, decisions and padding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from deblur_export.calibration.placement import (
    ASYMMETRIC,
    DESCRIPTOR,
    FIRST,
    LAST,
    placement,
)
from deblur_export.export.graph import inlined
from deblur_export.export.pipeline import ExportOptions
from deblur_export.export.precision.check import CONVOLUTIONS, multiply_adds
from deblur_export.plugins.parameters import DECIDES, POSITIONS
from tests.conftest import Exported, usual_options


def test_m2aenet_heads_of_offsets_and_mask_are_never_quantized(exported: Exported) -> None:
    placed = placement(onnx.load(exported("m2aenet").path))
    assert placed.never["motion_analyzer.flow/Conv"] == POSITIONS
    for layer in ("embed.0", "embed.3", "head.0", "head.2", "head.4"):
        assert placed.never[f"mask_predictor.{layer}/MatMul"] == DECIDES
    assert placed.never["intro/Conv"] == FIRST
    assert placed.never["ending/Conv"] == LAST
    assert placed.never["encoders.0.0.sca.1/Conv"] == DESCRIPTOR
    assert "encoders.0.0.conv2/Conv" in placed.macs
    assert not set(placed.macs) & set(placed.never)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("algnet", usual_options("algnet"), id="algnet-fixed"),
        pytest.param("algnet", ExportOptions(), id="algnet", marks=pytest.mark.slow),
        pytest.param("dhnet", ExportOptions(), id="dhnet", marks=pytest.mark.slow),
    ],
)
def test_most_convolutions_of_networks_with_reshapes_can_be_int8(
    name: str, options: ExportOptions, exported: Exported
) -> None:
    """Files of dynamic size compute the shapes of their reshapes."""
    model = onnx.load(exported(name, options=options).path)
    placed = placement(model)
    convs = {node.name for node in model.graph.node if node.op_type == "Conv"}
    whole = inlined(model)
    counted = multiply_adds(whole)
    total = sum(counted.get(n.output[0], 0) for n in whole.graph.node if n.op_type in CONVOLUTIONS)
    assert sum(macs for node, macs in placed.macs.items() if node in convs) > 0.85 * total
    assert total < placed.total == sum(counted.values()), "products count too"
    assert placed.never["ending/Conv"] == LAST


def test_asymmetric_padding_excludes_a_convolution() -> None:
    convs = "".join(
        f"y{i} = Conv<pads = {pads}>({source}, w)\n"
        for i, (source, pads) in enumerate(
            [("x", [1] * 4), ("y0", [2, 1, 0, 1]), ("y1", [1] * 4), ("y2", [1] * 4)]
        )
    )
    placed = placement(chain(convs))
    assert placed.never == {"n0": FIRST, "n1": ASYMMETRIC, "n3": LAST}
    assert [node.name for node in placed.nodes] == ["n2"]


def test_shape_computations_do_not_make_a_layer_first_or_last() -> None:
    """Reshapes in the middle of a graph use the shapes of the input and of a feature."""
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
    placed = placement(chain(convs))
    assert placed.never == {"n0": FIRST, "n7": LAST}
    assert [node.name for node in placed.nodes] == ["n3", "n4"]


def test_products_are_counted_in_the_total() -> None:
    """A network of 1x1 layers written as products has no more than all of its work in int8."""
    model = chain(
        """
        y0 = Conv<pads = [1, 1, 1, 1]>(x, w)
        last = Transpose<perm = [0, 2, 3, 1]>(y0)
        wide = MatMul(last, up)
        narrow = MatMul(wide, down)
        y2 = Transpose<perm = [0, 3, 1, 2]>(narrow)
        y3 = Conv<pads = [1, 1, 1, 1]>(y2, w)
        """
    )
    for name, shape in (("up", (3, 300)), ("down", (300, 3))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    placed = placement(model)
    assert [node.name for node in placed.nodes] == ["n2", "n3"]
    assert placed.total == 64 * 64 * (2 * 81 + 2 * 900)
    assert sum(placed.macs.values()) == 64 * 64 * 2 * 900


def chain(nodes: str) -> onnx.ModelProto:
    """A graph from the image x through nodes n0, n1, ... to y3; w is a 3x3 weight."""
    header = (
        '<ir_version: 9, opset_import: ["": 18]> g (float[n, 3, h, w] x) => (float[n, 3, h, w] y3)'
    )
    model = onnx.parser.parse_model(f"{header} <float[3, 3, 3, 3] w> {{ {nodes} }}")
    weight = np.ones((3, 3, 3, 3), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    for i, node in enumerate(model.graph.node):
        node.name = f"n{i}"
    return model
