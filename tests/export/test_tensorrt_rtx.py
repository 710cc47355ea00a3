"""TensorRT for RTX takes the files: parser and builder, no GPU needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deblur_export import models
from deblur_export.export.pipeline import ExportOptions
from tests.conftest import Exported

pytestmark = pytest.mark.trt
trt = pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX: pip install '.[rtx]'")

TINY = [
    (name, variant)
    for name in models.NAMES
    for variant in models.get(name).variants
    if variant.startswith("tiny")
]
QUICK = ("aibnet", "algnet", "m2aenet", "nafnet")  # to build
BUILT = [pytest.param(*pair, marks=[] if pair[0] in QUICK else pytest.mark.slow) for pair in TINY]
PARSED = [pytest.param(*pair, marks=[] if pair[1] == "tiny" else pytest.mark.slow) for pair in TINY]
SMALLEST, TYPICAL, LARGEST = (1, 3, 1, 1), (1, 3, 256, 256), (2, 3, 1440, 2560)


def parse(path: Path) -> tuple[Any, Any, Any]:
    """(builder, network, parser) of a file, strongly typed; the parser owns the weights."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(path))
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    return builder, network, parser


@pytest.mark.parametrize(("model", "variant"), PARSED)
def test_rtx_form_parses(exported: Exported, model: str, variant: str) -> None:
    _builder, network, _parser = parse(
        exported(model, variant, options=ExportOptions(target="rtx")).path
    )
    assert [network.get_input(i).name for i in range(network.num_inputs)] == ["image"]
    assert [network.get_output(i).name for i in range(network.num_outputs)] == ["restored"]


@pytest.mark.parametrize(("model", "variant"), BUILT)
def test_rtx_form_builds(exported: Exported, model: str, variant: str) -> None:
    builder, network, _parser = parse(
        exported(model, variant, options=ExportOptions(target="rtx")).path
    )
    engine = build(builder, network)
    assert engine is not None
    assert engine.nbytes > 500_000


@pytest.mark.parametrize("model", ["m2aenet", "nafnet"])
def test_portable_form_parses_with_normalization_layers(exported: Exported, model: str) -> None:
    _builder, network, _parser = parse(exported(model).path)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    assert sum(layer.type == trt.LayerType.NORMALIZATION for layer in layers) > 20


def test_local_pooling_stays_small(exported: Exported) -> None:
    """Slices of dynamic size would make a thousand layers of each pooling."""
    local, plain = (parse(exported("nafnet", local=local).path)[1] for local in (True, False))
    assert local.num_layers - plain.num_layers < 14 * 120


def build(builder: Any, network: Any) -> Any:
    """A serialized engine for any image up to the largest, compute capability 8.9; or None."""
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("image", SMALLEST, TYPICAL, LARGEST)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    return builder.build_serialized_network(network, config)


@pytest.mark.slow
def test_paper_variant_parses(exported: Exported) -> None:
    _builder, network, _parser = parse(exported(variant="base").path)
    assert network.num_layers > 1000
