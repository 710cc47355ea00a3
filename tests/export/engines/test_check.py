"""Checks of the precision of an engine, on counts of layers and on what the inspector says."""

from __future__ import annotations

import json

import pytest

from deblur_export.engine_record import Census
from deblur_export.errors import CheckFailedError
from deblur_export.export.engines.check import Claim, check_engine, inspected


def census(**counts: int) -> Census:
    return Census("layers", counts)


INT8 = census(int8=60, fp32=16)
MIXED = census(int8=60, fp16=14, fp32=2)


@pytest.mark.parametrize(
    ("precision", "network", "engine", "words"),
    [
        ("fp16", census(fp32=76), None, "asked for fp16, but the graph is not fp16"),
        ("fp16", census(fp16=30, fp32=40), census(fp16=70), "the graph is not fp16"),
        ("bf16", census(fp16=76), census(fp16=76), "the graph is not bf16"),
        ("fp32", census(fp32=70, fp16=6), None, "asked for fp32, but it holds fp16"),
        ("fp32", INT8, None, "asked for fp32, but it holds int8"),
        # The silent one: a typed network, and an engine that is not.
        ("fp16", census(fp16=76), census(fp32=32), "asked for fp16, but the built engine is not"),
        ("fp16", census(fp16=76), census(fp16=28, fp32=4), "the built engine is not"),
        ("fp32", census(fp32=76), census(fp16=32), "asked for fp32, but the built engine is not"),
        ("fp16", census(), None, "the graph is not fp16"),
        # A parser that folds pairs away, in part or all of them.
        ("int8", census(int8=59, fp32=17), None, "60 of its layers .* but the parser made 59"),
        ("int8+fp16", census(fp16=76), census(fp16=76), "the parser made 0"),
        ("int8", MIXED, None, "asked for int8, but it holds fp16"),
        ("int8+fp16", INT8, None, "what int8 leaves is not fp16"),
        # A builder that keeps the weights wide.
        ("int8", INT8, census(fp32=76), "asked for int8, but the built engine is not"),
        ("int8+fp16", MIXED, census(fp16=76), r"int8\+fp16, but the built engine is not"),
        ("int8+fp16", MIXED, census(int8=60, fp32=16), r"18% would be fp16"),
    ],
)
def test_check_fails(precision: str, network: Census, engine: Census | None, words: str) -> None:
    claim = Claim("net.onnx", 60)
    with pytest.raises(CheckFailedError, match=words) as caught:
        check_engine(precision, network, engine, network, claim)  # type: ignore[arg-type]
    assert "the engine was not kept" in str(caught.value)


def test_check_passes_and_says_what_it_is_based_on() -> None:
    network, claim = census(fp16=70, fp32=6), Claim("net.onnx")
    lines = check_engine("fp16", network, census(fp16=28, fp32=4), network, claim)
    assert lines == ["layers: 70 fp16, 6 fp32 of 76", "layers: 28 fp16, 4 fp32 of 32"]
    alone = check_engine("fp32", census(fp32=76), None, network, claim)
    assert "only the network was checked" in alone[1]
    # The largest weights need not be int8 as often as all layers are: the file says which are.
    weights = census(int8=10, fp16=22)
    assert len(check_engine("int8+fp16", MIXED, weights, weights, Claim("net.onnx", 60))) == 2


def layer(kind: str, **tensor: str) -> dict[str, object]:
    return {"Name": kind, "LayerType": kind, "Inputs": [{"Name": "x", **tensor}], "Outputs": []}


@pytest.mark.parametrize(
    ("layers", "counts"),
    [
        # TensorRT 10: one field, spelled in many ways.
        (
            [
                layer("CaskConvolution", **{"Format/Datatype": "Channel major FP16 format"}),
                layer("CaskGemmConvolution", **{"Format/Datatype": "Half"}),
                layer("gemm", **{"Format/Datatype": "Row major linear FP32"}),
                layer("Reformat", **{"Format/Datatype": "Float"}),
            ],
            {"fp16": 2, "fp32": 1},
        ),
        # TensorRT 11: type and format apart.
        (
            [
                layer("CaskConvolution", Datatype="BFloat16", Format="NHWC8"),
                layer("MatrixMultiply", Datatype="Float", Format="Linear"),
                layer("CaskConvolution", Datatype="Int8", Format="NHWC16"),
            ],
            {"bf16": 1, "fp32": 1, "int8": 1},
        ),
        # Fused into one piece: every layer that has floating-point inputs.
        ([layer("Myelin", Datatype="Half"), layer("Shape", Datatype="Int64")], {"fp16": 1}),
    ],
)
def test_inspector(layers: list[dict[str, object]], counts: dict[str, int]) -> None:
    found = inspected(json.dumps({"Layers": layers}))
    assert found is not None
    assert found.counts == counts


def test_inspector_without_types_proves_nothing() -> None:
    assert inspected(json.dumps({"Layers": ["intro/Conv", "ending/Conv"]})) is None
