"""Calibrators against brute force, pairs around the right tensors, the search inside its budget."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from deblur_export.calibration.calibrators import CLIPS, METHODS, PERCENTILE, Method, limits
from deblur_export.calibration.histogram import Histogram
from deblur_export.calibration.qdq import (
    DIGITS,
    LAYOUTS,
    LEVELS,
    SMALLEST,
    Grid,
    Layout,
    find_sites,
    grid,
    portable_scale,
    quantized,
    quantized_weight,
    read_tensors,
)
from deblur_export.calibration.search import Block, Score, blocks_of, ladder, sensitivity
from deblur_export.errors import DeblurExportError
from deblur_export.plugins.libraries import openvino as openvino_library
from tests import needs

Array = NDArray[Any]


def histogram(*parts: Array) -> Histogram:
    found = Histogram()
    for part in parts:
        found.add(part.astype(np.float32))
    return found


def heavy_tailed(seed: int, size: int = 400_000) -> Array:
    """Most values within 1, one far out, a short negative side."""
    rng = np.random.default_rng(seed)
    values = np.maximum(rng.laplace(0, 0.3, size), -0.2)
    values[0] = 12.0
    return values.astype(np.float32)


def test_histogram_is_the_same_in_any_order_and_counts_right() -> None:
    values = heavy_tailed(0)
    small, large = np.sort(values)[:-1000], np.sort(values)[-1000:]
    one, other = histogram(small, large), histogram(large, small)
    np.testing.assert_array_equal(one.counts, other.counts)
    assert (one.power, one.low, one.high) == (other.power, values.min(), values.max())
    edges = np.append(one.centres - one.width / 2, one.centres[-1] + one.width / 2)
    np.testing.assert_array_equal(one.counts, np.histogram(values, edges)[0])


def test_histogram_refuses_what_is_no_number() -> None:
    with pytest.raises(DeblurExportError, match="check the weights"):
        histogram(np.array([1.0, np.nan]))


def rounded(values: Array, low: float, high: float, symmetric: bool) -> Array:
    found = grid((low, high), "tensorrt" if symmetric else "cpu")
    ends = (-127, 127) if symmetric else (0, 255)
    levels = np.clip(np.rint(values / found.scale) + found.zero, *ends)
    return (levels - found.zero) * found.scale


@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_is_as_good_as_trying_every_clip(symmetric: bool) -> None:
    values = heavy_tailed(1).astype(np.float64)

    def error(low: float, high: float) -> float:
        ends = (-max(-low, high), max(-low, high)) if symmetric else (low, high)
        return float(np.square(rounded(values, *ends, symmetric) - values).mean())

    tried = [error(max(values.min(), -c), min(values.max(), c)) for c in CLIPS * 12.0]
    chosen = limits(histogram(values), "mse", symmetric)
    # Scales are rounded up by less than 1 %, errors by less than 2 %; bins do the rest.
    assert error(*chosen) <= 1.04 * min(tried) < 0.7 * tried[0]


def divergence(values: Array, clip: float, found: Histogram) -> float:
    """By the definition, in loops over bins: the symmetric form."""
    step = 2 * clip / 254
    true, kept = dict[int, float](), dict[int, float]()
    first = int(np.searchsorted(found.centres, max(found.low, -clip)))
    last = int(np.searchsorted(found.centres, min(found.high, clip))) - 1
    for i in np.flatnonzero(found.counts):
        place = min(max(int(i), first), last)
        true[place] = true.get(place, 0) + float(found.counts[i])
    levels = dict[int, list[int]]()
    for i in np.flatnonzero(found.counts[: last + 1]):
        if i < first:
            continue
        levels.setdefault(round(found.centres[i] / step), []).append(int(i))
    for bins in levels.values():
        for i in bins:
            kept[i] = sum(float(found.counts[j]) for j in bins) / len(bins)
    total, whole = sum(true.values()), sum(kept.values())
    return sum(
        n / total * np.log(n / total / max(kept.get(i, 0) / whole, 0.5 / total))
        for i, n in true.items()
    )


def test_entropy_is_the_least_divergence_of_all_clips() -> None:
    values = np.append(np.random.default_rng(2).normal(0, 0.7, 400_000), 12.0)
    found = histogram(values)
    tried = [divergence(values, clip, found) for clip in CLIPS[::10] * 12.0]
    chosen = limits(found, "entropy", True)[1]
    assert divergence(values, chosen, found) <= min(tried) + 1e-6
    assert chosen < 6


@pytest.mark.parametrize("symmetric", [True, False])
def test_percentile_leaves_out_what_it_says(symmetric: bool) -> None:
    values = heavy_tailed(3)
    found = histogram(values)
    low, high = limits(found, "percentile", symmetric)
    if symmetric:
        assert high == pytest.approx(
            np.quantile(np.abs(values), PERCENTILE / 100), abs=2 * found.width
        )
    else:
        share = (1 - PERCENTILE / 100) / 2
        expected = np.quantile(values, 1 - share, method="inverted_cdf")
        assert high == pytest.approx(expected, abs=2 * found.width)
        assert low == pytest.approx(values.min())


def test_minmax_covers_everything_and_no_more() -> None:
    values = heavy_tailed(4)
    assert limits(histogram(values), "minmax", False) == (values.min(), values.max())
    assert limits(histogram(values), "minmax", True) == (-values.max(), values.max())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("constant", [0.0, 0.7, -3.0])
def test_a_constant_tensor_is_kept(constant: float, method: Method, layout: Layout) -> None:
    symmetric = layout == "tensorrt"
    low, high = limits(histogram(np.full((2, 3), constant)), method, symmetric)
    found = grid((low, high), layout)
    assert np.isfinite(found.scale) and found.scale > 0
    result = rounded(np.array([constant]), low, high, symmetric)
    np.testing.assert_allclose(result, constant, rtol=0.01)


NET = """
<ir_version: 10, opset_import: ["": 18]>
net (float[n, 3, h, w] image) => (float[n, 4, h, w] restored)
<float[4, 3, 1, 1] a_w, float[4] a_b, float[4, 4, 3, 3] b_w, float[4, 4, 1, 1] c_w> {
    [a_conv] a = Conv(image, a_w, a_b)
    [b_conv] b = Conv <pads = [1, 1, 1, 1]> (a, b_w)
    [c_conv] c = Conv(a, c_w)
    [joined] d = Add(b, c)
    [residual] restored = Add(d, a)
}"""


@pytest.fixture
def net() -> onnx.ModelProto:
    model = onnx.parser.parse_model(NET)
    rng = np.random.default_rng(0)
    shapes = {"a_w": (4, 3, 1, 1), "a_b": (4,), "b_w": (4, 4, 3, 3), "c_w": (4, 4, 1, 1)}
    scale = {"b_w": np.array([1, 10, 0.01, 0])[:, None, None, None]}  # a channel of zeros
    model.graph.initializer.extend(
        numpy_helper.from_array(
            (rng.normal(size=shape) * scale.get(name, 1)).astype(np.float32), name
        )
        for name, shape in shapes.items()
    )
    return model


IMAGE = np.random.default_rng(1).random((1, 3, 8, 9), dtype=np.float32)


def run(model: onnx.ModelProto, outputs: tuple[str, ...] = ()) -> list[Array]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": IMAGE})


def grids_for(model: onnx.ModelProto, layout: Layout) -> dict[str, Grid]:
    names = read_tensors(model, find_sites(model))
    inner = tuple(name for name in names if name != "image")
    seen = dict(zip(inner, run(model, inner)[1:], strict=True)) | {"image": IMAGE}
    symmetric = layout == "tensorrt"
    return {n: grid(limits(histogram(seen[n]), "minmax", symmetric), layout) for n in names}


def quantized_net(net: onnx.ModelProto, layout: Layout) -> onnx.ModelProto:
    return quantized(net, find_sites(net), grids_for(net, layout), layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_graph_is_valid_and_computes_what_rounding_says(
    net: onnx.ModelProto, layout: Layout
) -> None:
    result = quantized_net(net, layout)
    onnx.checker.check_model(result, full_check=True)
    exact, ours = run(net)[0], run(result)[0]
    assert 0 < np.abs(exact - ours).max() < 0.03 * np.abs(exact).max()
    needs.OPENVINO.load()
    core = openvino_library.shared_core()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(result.SerializeToString()), "CPU", hint)
    theirs = compiled({"image": IMAGE})[0]
    # Its int8 kernels round products of sums in another order: at a tie, one level.
    assert np.abs(theirs - ours).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_readers_of_a_tensor_see_it_exact(net: onnx.ModelProto, layout: Layout) -> None:
    nodes = {node.name: node for node in quantized_net(net, layout).graph.node}
    assert nodes["b_conv"].input[0] == nodes["c_conv"].input[0] == "a/rounded"
    assert nodes["residual"].input[1] == "a"
    assert nodes["a_conv"].input[2] == "a_b"


def test_only_tensorrt_quantizes_sums_of_two_convolutions(net: onnx.ModelProto) -> None:
    joined = {
        layout: next(n for n in quantized_net(net, layout).graph.node if n.name == "joined")
        for layout in LAYOUTS
    }
    assert list(joined["tensorrt"].input) == ["b/rounded", "c/rounded"]
    assert list(joined["cpu"].input) == ["b", "c"]


def test_weights_are_symmetric_per_channel_and_activations_as_the_layout_says(
    net: onnx.ModelProto,
) -> None:
    for layout, kind in (("tensorrt", TensorProto.INT8), ("cpu", TensorProto.UINT8)):
        result = quantized_net(net, layout)  # type: ignore[arg-type]
        stored = {tensor.name: tensor for tensor in result.graph.initializer}
        assert "b_w" not in stored
        assert stored["a/zero_point"].data_type == kind
        scales = numpy_helper.to_array(stored["b_w/scale"])
        levels = numpy_helper.to_array(stored["b_w/quantized"])
        assert scales.shape == (4,) and levels.dtype == np.int8
        assert not numpy_helper.to_array(stored["b_w/zero_point"]).any()
        weight = numpy_helper.to_array(next(t for t in net.graph.initializer if t.name == "b_w"))
        error = np.abs(levels * scales[:, None, None, None] - weight)
        assert (error <= scales[:, None, None, None] * 0.5001).all()
        assert (np.abs(levels).max(axis=(1, 2, 3)) == [127, 127, 127, 0]).all()


def test_channels_of_matrices_are_their_columns() -> None:
    weight = np.array([[1.0, 100.0], [0.5, -50.0]], np.float32)
    levels, scales = quantized_weight(weight, 1)
    np.testing.assert_allclose(scales, [1 / 127, 100 / 127], rtol=2**-7)
    np.testing.assert_array_equal(levels, np.rint(weight / scales))


def test_scales_are_the_same_number_in_every_type() -> None:
    wanted = 10.0 ** np.linspace(-9, 4, 1000)
    scales = portable_scale(wanted)
    for kind in (np.float16, ml_dtypes.bfloat16):
        np.testing.assert_array_equal(scales.astype(kind).astype(np.float32), scales)
    assert (scales >= wanted).all()
    normal = wanted > SMALLEST * 2**DIGITS
    assert (scales[normal] < wanted[normal] * (1 + 2**-7)).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_levels_reach_both_ends_of_the_range(layout: Layout) -> None:
    for low, high in ((-0.3, 1.7), (0.0, 2.0), (-5.0, 0.0), (-1.0, 1.0)):
        found, (first, last) = grid((low, high), layout), map(int, LEVELS[layout])
        assert first <= found.zero <= last
        reach = [(level - found.zero) * found.scale for level in (first, last)]
        assert reach[0] <= low + found.scale / 2 and reach[1] >= high - found.scale / 2


def test_blocks_follow_the_modules() -> None:
    names = ("intro/Conv", "encoders.0.1.conv2/Conv", "encoders.0.1.sca.1/Conv", "downs.0/Conv")
    names += ("encoder.ups.1.0.conv/Conv", "head.embed/MatMul")
    found = blocks_of(dict.fromkeys(names, 2))
    assert [block.name for block in found] == [
        "intro",
        "encoders.0.1",
        "downs.0",
        "encoder.ups.1.0",
        "head",
    ]
    assert found[1].macs == 4


def test_the_ladder_gives_back_what_harms_most_for_its_size() -> None:
    harm = {"cheap": 1e-5, "dear": 1e-4, "bad": 9e-5}
    blocks = [Block("cheap", ("c",), 10), Block("dear", ("d",), 1000), Block("bad", ("b",), 10)]
    of_node = {node: harm[block.name] for block in blocks for node in block.nodes}

    def score(nodes: Collection[str]) -> Score:
        error = sum(of_node[node] for node in nodes)
        return Score(100 * error, error)

    alone = sensitivity(blocks, score, print)
    assert {name: s.error for name, s in alone.items()} == pytest.approx(harm)
    points = list(ladder(blocks, alone, score, 2000, print))
    assert [p.blocks for p in points] == [("cheap", "dear", "bad"), ("cheap", "dear"), ("dear",)]
    assert points[1].share == pytest.approx(0.505)
    assert points[1].score.drop == pytest.approx(0.011)
