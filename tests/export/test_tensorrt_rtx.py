"""TensorRT for RTX takes the portable file: parser and builder, no GPU needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Exported

pytestmark = pytest.mark.trt
trt = pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX: pip install '.[rtx]'")

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


@pytest.mark.parametrize("model", ["m2aenet", "nafnet"])
def test_parses_and_builds(exported: Exported, model: str) -> None:
    builder, network, _parser = parse(exported(model).path)
    assert [network.get_input(i).name for i in range(network.num_inputs)] == ["image"]
    assert [network.get_output(i).name for i in range(network.num_outputs)] == ["restored"]
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    assert sum(layer.type == trt.LayerType.NORMALIZATION for layer in layers) > 20
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("image", SMALLEST, TYPICAL, LARGEST)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert engine.nbytes > 1_000_000


@pytest.mark.slow
def test_paper_variant_parses(exported: Exported) -> None:
    _builder, network, _parser = parse(exported(variant="base").path)
    assert network.num_layers > 1000
