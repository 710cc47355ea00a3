"""A value carries the name of a module only if it is the module's output."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from torch import nn

from deblur_export.artifact import Artifact
from deblur_export.calibration.images import Crops, spread
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import inner_values
from deblur_export.export.images.cases import random_cases
from deblur_export.export.parity.verify import compare_layers
from deblur_export.export.pipeline import ExportOptions, export_onnx
from deblur_export.export.restore import Restorer
from deblur_export.models.image_spec import ImageSpec
from tests.export import traps

SHAPE = (1, 3, 24, 16)


def exported(net: nn.Module, folder: Path) -> Artifact:
    model = traps.loaded(net, ImageSpec(1))
    return export_onnx(model, ExportOptions(shape=SHAPE), folder / "toy.onnx")


def producer(artifact: Artifact, value: str) -> onnx.NodeProto:
    return next(node for node in artifact.proto.graph.node if value in node.output)


def test_a_map_that_a_module_keeps_does_not_get_its_name(tmp_path: Path) -> None:
    net = traps.KeepsMap()
    artifact = exported(net, tmp_path)
    assert producer(artifact, "gate").op_type == "Tanh"
    layers = compare_layers(artifact, traps.loaded(net, ImageSpec(1)), random_cases(SHAPE)[0])
    assert {"gate", "conv"} <= {layer.name for layer in layers}
    assert not any(layer.diverged for layer in layers)


def test_layers_before_an_operation_in_place_do_not_diverge(tmp_path: Path) -> None:
    net = traps.InPlace()
    artifact = exported(net, tmp_path)
    layers = compare_layers(artifact, traps.loaded(net, ImageSpec(1)), random_cases(SHAPE)[0])
    assert [layer.name for layer in layers] == ["conv", "act", "last"]
    assert not any(layer.diverged for layer in layers)


def test_a_layer_called_mask_is_no_blur_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = exported(traps.Mask(), tmp_path)
    assert "mask" in inner_values(artifact.proto)
    with pytest.raises(DeblurExportError, match="makes no blur mask"):
        Restorer(artifact, mask=True)
    crops = Crops((random_cases(SHAPE)[0].image,), ("one",))
    monkeypatch.setattr(
        "deblur_export.calibration.images.open_session",
        lambda *_, **__: pytest.fail("a layer was read as a mask"),
    )
    assert spread(crops, artifact, 1, lambda step: None).names == ("one",)
