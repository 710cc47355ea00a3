"""Every network and variant: exported, verified at several sizes, built by TensorRT for RTX."""

from __future__ import annotations

import pytest

from deblur_export import models
from deblur_export.export.images.cases import random_cases
from deblur_export.export.parity.verify import reference_model, verify
from deblur_export.export.pipeline import ExportOptions, export_onnx
from deblur_export.models.blocks.naf import tlc_window
from deblur_export.models.checkpoint import load_model
from deblur_export.plugins.libraries.openvino import find
from deblur_export.target import TARGETS, TargetName
from tests import needs
from tests.conftest import FIXED_SIZE, Exported, usual_options
from tests.tolerances import NETWORK_FLOAT32

VARIANTS = [(name, variant) for name in models.NAMES for variant in models.get(name).variants]
TINY = [(name, variant) for name, variant in VARIANTS if variant.startswith("tiny")]
FULL = [pair for pair in VARIANTS if pair not in TINY]
MAIN = [pair for pair in TINY if pair[1] == "tiny"]
# Tracing with dynamic sizes takes several times as long as with fixed ones. DHNet's prior is the
# largest of them, and its parts are in UFPNet's encoder and in DHNet's own tiny variant.
TINY_OTHERS = [
    pytest.param(*pair, marks=[pytest.mark.slow] * (pair[1] == "tiny-prior"))
    for pair in TINY
    if pair[1] != "tiny"
]
FIXED = (2, 3, 33, 47)
LOCAL = [
    pytest.param(name, marks=[] if name == "nafnet" else pytest.mark.slow)
    for name in models.NAMES
    if models.get(name).local
]


def check(exported: Exported, name: str, variant: str, options: ExportOptions) -> None:
    """All sizes and the error against float64 in the portable form; the others, which are the same
    graph with other bodies or other operators of the same values, on a batch and a narrow image.
    """
    artifact = exported(name, variant, options=options)
    cases = random_cases(artifact.manifest.input.shape)
    runtime = "openvino" if options.target == "openvino" else "onnxruntime"
    built = False
    if runtime == "openvino":
        openvino = needs.OPENVINO.load()
        built = find(openvino.__version__).path is not None
        if name == "aibnet" and not built:
            pytest.skip(needs.EXTENSION.reason)  # without them it does not load AIBNet
    portable = options.target == "portable"
    report = verify(
        artifact,
        reference_model(artifact),
        cases if portable else cases[1::2],
        float64=portable,
        runtime=runtime,
    )
    assert report.passed, [case.reason for case in report.cases]
    for case in report.cases:
        assert case.max_abs <= NETWORK_FLOAT32["atol"], case.name
        if portable:
            assert case.candidate_float64 is not None
            assert case.candidate_float64 <= NETWORK_FLOAT32["atol"], case.name
    if runtime == "openvino" and artifact.manifest.custom_ops:
        assert ("with native ops" in report.candidate) == built


# ONNX Runtime is slow at the form of ALGNet's scans that TensorRT for RTX takes.
SLOW = [("algnet", "tiny", "rtx")]


@pytest.mark.parametrize(
    ("name", "variant", "target"),
    [
        pytest.param(*pair, target, marks=[pytest.mark.slow] * ((*pair, target) in SLOW))
        for pair in MAIN
        for target in TARGETS
    ],
)
def test_tiny_variants_agree_with_pytorch(
    exported: Exported, name: str, variant: str, target: TargetName
) -> None:
    check(exported, name, variant, usual_options(name, target))


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", FIXED_SIZE)
def test_large_networks_agree_at_every_size(
    exported: Exported, name: str, target: TargetName
) -> None:
    check(exported, name, "tiny", ExportOptions(target))


@pytest.mark.parametrize(("name", "variant"), TINY_OTHERS)
def test_other_tiny_variants_agree_at_one_size(exported: Exported, name: str, variant: str) -> None:
    check(exported, name, variant, ExportOptions(shape=FIXED))


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "variant"), TINY_OTHERS)
def test_other_tiny_variants_agree_at_every_size(
    exported: Exported, name: str, variant: str, target: TargetName
) -> None:
    check(exported, name, variant, ExportOptions(target))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), TINY)
def test_networks_as_trained_agree_as_well(exported: Exported, name: str, variant: str) -> None:
    check(exported, name, variant, ExportOptions(reparam=False))


@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize("name", LOCAL)
def test_local_form_agrees_beyond_its_window(
    exported: Exported, name: str, target: TargetName
) -> None:
    artifact = exported(name, local=True, options=ExportOptions(target=target))
    window = tlc_window(artifact.manifest.model.arguments["train_size"], 0)
    case = random_cases(artifact.manifest.input.shape, window)[-1]
    assert window is not None
    assert min(case.image.shape[2:]) > window
    report = verify(artifact, reference_model(artifact), [case])
    assert report.passed, report.cases[0].reason


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), FULL)
def test_full_variants_agree_with_pytorch(tmp_path_factory, name: str, variant: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("full") / "net.onnx"
    model = load_model(name, variant, "random:0")
    artifact = export_onnx(model, ExportOptions(), path)
    cases = random_cases(artifact.manifest.input.shape)
    try:
        report = verify(artifact, model, cases, float64=True)
    finally:
        path.unlink()
    assert report.passed, [case.reason for case in report.cases]
    assert all((case.candidate_float64 or 0) <= 2e-4 for case in report.cases)
