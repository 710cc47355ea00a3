"""Residual streams beyond float16 are divided by a power of two, and the output stays exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from deblur_export.artifact import Artifact
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.graph import graph_of, message_of
from deblur_export.export.images.cases import Case, random_cases
from deblur_export.export.parity.verify import compare_layers, verify
from deblur_export.export.pipeline import ExportOptions, trace_model, write_onnx
from deblur_export.export.precision import headroom_rule
from deblur_export.export.precision.ranges import headrooms_by_images, observe
from deblur_export.export.precision.rescale import (
    PASS,
    REST,
    powers,
    recorded_powers,
    rescale,
    rescaled,
)
from deblur_export.export.runtimes.emulated_session import float32_session
from deblur_export.models.checkpoint import LoadedModel, load_model
from tests.conftest import Exported

SHAPE = (1, 3, 32, 32)
# A stream x with every kind of writer and reader; t is the output of an operator that is neither.
STREAM = """
<ir_version: 10, opset_import: ["": 18]>
net (float[1, 4, 8, 8] image) => (float[1, 4, 8, 8] restored)
<float[4, 4, 1, 1] wide, float[4] bias, float[4, 4, 1, 1] own, float[4, 4, 1, 1] small,
 float[8] ones, float[8] zeros, float[1, 4, 1, 1] beta, float[1, 4, 1, 1] offset, float edge,
 int64[8] pads, float[4, 8, 1, 1] joins> {
    a = Conv(image, wide, bias)
    n = LayerNormalization<axis = 3, epsilon = 1e-6>(a, ones, zeros)
    s = Sigmoid(n)
    t = Mul(s, n)
    g = Conv(t, own, bias)
    scaled = Mul(g, beta)
    b = Add(a, scaled)
    c = Add(b, t)
    d = Add(c, offset)
    e = Conv(d, own, bias)
    f = Sub(e, d)
    h = Tanh(f)
    padded = Pad(f, pads, edge)
    both = Concat<axis = 1>(padded, padded)
    last = Conv(both, joins, bias)
    end = Conv(last, small, bias)
    sum = Add(end, h)
    restored = Add(sum, image)
}"""


def numbers(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
    return (np.random.default_rng(len(shape)).normal(size=shape) * scale).astype(np.float32)


def stream() -> ir.Model:
    model = onnx.parser.parse_model(STREAM)
    square = (4, 4, 1, 1)
    values: Mapping[str, NDArray[np.generic]] = {
        "wide": numbers(*square, scale=1e6),
        "bias": numbers(4),
        "own": numbers(*square),
        "small": numbers(*square, scale=1e-7),
        "ones": np.ones(8, np.float32),
        "zeros": numbers(8),
        "beta": numbers(1, 4, 1, 1, scale=1e5),
        "offset": numbers(1, 4, 1, 1, scale=1e5),
        "edge": np.float32(3.0),
        "pads": np.zeros(8, np.int64),
        "joins": numbers(4, 8, 1, 1),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()
    )
    return ir.from_proto(model)


IMAGE = Case("image", numbers(1, 4, 8, 8))


def restored(model: ir.Model) -> NDArray[np.float32]:
    session = float32_session(message_of(model))
    result: NDArray[np.float32] = session.run(["restored"], {"image": IMAGE.image})[0]
    return result


def test_every_kind_of_operator_computes_the_same_bits() -> None:
    model = stream()
    expected, before = restored(model), headrooms_by_images([IMAGE])(model)
    chosen = powers(model.graph, before)
    names = {str(value.name): power for value, power in chosen.items()}
    # c is a sum with t, which is therefore divided as well, after the operator that computes it.
    assert {"a", "b", "c", "d", "e", "f", "g", "t", "scaled", "padded", "both"} <= set(names)
    assert not {"n", "s", "h", "end", "sum", "restored"} & set(names)
    rescale(model, chosen)
    np.testing.assert_array_equal(restored(model), expected)
    after = headrooms_by_images([IMAGE])(model)
    for name, power in names.items():
        assert after[name] == pytest.approx(before[name] + power)
    assert min(after[name] for name in names) >= REST
    # After the Mul that makes t, and before Tanh.
    assert sum(node.op_type == "Mul" for node in model.graph) == 2 + 2


@pytest.mark.parametrize("network", ["m2aenet", "nafnet"])
def test_every_stream_of_a_network_computes_the_same_bits(exported: Exported, network: str) -> None:
    """As if the outputs of all convolutions exceeded float16."""
    artifact = exported(network)
    graph = graph_of(artifact)
    image = {"image": random_cases(artifact.manifest.input.shape)[0].image}
    (expected,) = float32_session(message_of(graph)).run(["restored"], image)
    convolutions = [node.outputs[0].name for node in graph.graph if node.op_type == "Conv"]
    chosen = powers(graph.graph, dict.fromkeys(map(str, convolutions), -6.0))
    assert len(chosen) > 50
    rescale(graph, chosen)
    (found,) = float32_session(message_of(graph)).run(["restored"], image)
    np.testing.assert_array_equal(found, expected)


def test_streams_that_stay() -> None:
    """Of a graph that has room, with the image or the output, or without a finite value."""
    model = stream()
    assert powers(model.graph, {"a": 2.0, "f": 9.0}) == {}
    assert powers(model.graph, {"sum": -5.0, "restored": -5.0}) == {}
    assert powers(model.graph, {"a": -np.inf}) == {}
    assert powers(model.graph, {}) == {}


def test_numbers_that_become_subnormal_are_found() -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["": 18]>
    net (float[1, 4, 8, 8] image) => (float[1, 4, 8, 8] restored)
    <float[4, 4, 1, 1] tiny, float[4, 4, 1, 1] huge> {
        a = Conv(image, tiny)
        restored = Conv(a, huge)
    }""")
    eye = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
    for name, size in (("tiny", 1e-30), ("huge", 1e30)):
        model.graph.initializer.append(numpy_helper.from_array(eye * np.float32(size), name))
    traced = ir.from_proto(model)
    with pytest.raises(CheckFailedError, match="rescaling changed the output by"):
        rescaled(traced, "portable", {"a": -36.0}, IMAGE)
    assert rescaled(traced, "portable", {"a": -5.0}, IMAGE).error == 0


def large(power: int) -> LoadedModel:
    """A NAFNet whose residual stream is 2**power times larger, with the output of the demo
    weights."""
    model = load_model("nafnet", "tiny", "demo")
    factor, state = 2.0**power, model.net.state_dict()
    for name, value in state.items():
        stream = name.endswith((".beta", ".gamma")) or name.startswith("intro.")
        if stream or (name.startswith("downs.") and name.endswith(".bias")):
            state[name] = value * factor
    state["ending.weight"] = state["ending.weight"] / factor
    model.net.load_state_dict(state)
    return model


def test_a_network_that_overflows_in_float16_passes_once_it_is_rescaled(tmp_path: Path) -> None:
    model, cases = large(15), random_cases(SHAPE)[:1]
    options = ExportOptions(shape=SHAPE, precision="fp16")
    traced = trace_model(model, options)

    def exported(name: str, options: ExportOptions) -> Artifact:
        return write_onnx(model, options, traced, tmp_path / name)

    plain = verify(exported("plain.onnx", options), model, cases)
    assert plain.cases[0].reason.startswith(
        "its output contains NaN or infinity: export with --precision bf16 or fp32, or with "
        "--rescale"
    )
    known = replace(options, headrooms=headrooms_by_images(cases))
    with pytest.raises(CheckFailedError, match="or with --rescale and --images"):
        exported("kept.onnx", known)

    artifact = exported("rescaled.onnx", replace(known, rescale=True))
    report = verify(artifact, model, cases)
    assert report.passed, report.cases[0].reason
    assert report.cases[0].psnr > 75
    found = [each for each in artifact.manifest.passes if each.name.startswith(PASS)]
    assert found and all(each.max_error == 0 for each in found)
    assert recorded_powers(artifact.manifest.passes)["intro"] >= 3
    layers = compare_layers(artifact, model, cases[0])
    assert "intro" in {layer.name for layer in layers}
    assert not any(layer.diverged for layer in layers)
    largest = {entry.name: entry.headroom for entry in observe(_float32(artifact), cases)}
    assert min(largest.values()) > 1


def _float32(artifact: Artifact) -> onnx.ModelProto:
    from deblur_export.export.runtimes.emulated_session import widened

    return widened(artifact.proto)


@pytest.mark.parametrize(
    ("precision", "images", "words"),
    [
        ("fp16", None, "--rescale needs --images or --ranges"),
        ("fp32", None, "--rescale needs --images or --ranges"),
        ("bf16", Path("photos"), "--rescale is for fp16: bf16 has the range of float32"),
    ],
)
def test_what_it_needs(precision: str, images: Path | None, words: str) -> None:
    with pytest.raises(DeblurExportError, match=words):
        headroom_rule(precision, None, images, None, True, print)


def test_torch_agrees_that_the_stream_of_the_test_network_alone_is_larger() -> None:
    """The network of the test above computes what the demo weights do."""
    image = torch.from_numpy(random_cases(SHAPE)[0].image)
    with torch.no_grad():
        expected, found = load_model("nafnet", "tiny", "demo").net(image), large(3).net(image)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
