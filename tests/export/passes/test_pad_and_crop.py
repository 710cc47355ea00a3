"""The graph pads as `pad_image` does, and crops at scale: for every kind of size limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from deblur_export.artifact import Artifact, read_artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.pipeline import ExportOptions, export_onnx
from deblur_export.models.checkpoint import LoadedModel
from tests.scaled import Repeating, Shuffling, scaled_model

SIZES = ((2, 33, 47), (1, 5, 3), (1, 24, 20))


def export(model: LoadedModel, folder: Path, shape: Any = None) -> Artifact:
    options = ExportOptions(shape=shape, reparam=False)
    return read_artifact(export_onnx(model, options, folder / "net.onnx").path)


def outputs(artifact: Artifact, model: LoadedModel, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Of the file and of the network."""
    image = np.random.default_rng(0).random(shape, np.float32)
    session = onnxruntime.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model.net(torch.from_numpy(image)).numpy()
    return [session.run(None, {"image": image})[0], expected]


@pytest.mark.parametrize(
    "images",
    [
        {"scale": 2},
        {"scale": 3, "multiple": 4, "channels": 1},
        {"scale": 4, "multiple": 8, "minimum": 20, "padding": "reflect", "channels": 4},
        {"scale": 8, "multiple": 2, "minimum": 7, "square": True, "padding": "reflect"},
        {"square": True},
        {"minimum": 16},
    ],
    ids=str,
)
def test_every_size_is_placed_as_the_network_places_it(
    images: dict[str, Any], tmp_path: Path
) -> None:
    model = scaled_model(Shuffling, **images)
    artifact = export(model, tmp_path)
    channels, scale = model.images.channels, model.images.scale
    for batch, height, width in SIZES:
        found, expected = outputs(artifact, model, (batch, channels, height, width))
        assert found.shape == (batch, channels, scale * height, scale * width)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_whole_image_is_enlarged_and_not_its_corner(tmp_path: Path) -> None:
    model = scaled_model(Repeating, scale=2, multiple=8)
    found, _ = outputs(export(model, tmp_path), model, (1, 3, 13, 21))
    image = np.random.default_rng(0).random((1, 3, 13, 21), np.float32)
    assert (found == image.repeat(2, axis=2).repeat(2, axis=3)).all()


def test_free_sizes_of_input_and_output_have_names_of_their_own(tmp_path: Path) -> None:
    """In ONNX, dimensions of one name are equal."""
    for scale, names in ((1, ["height", "width"]), (2, ["scaled_height", "scaled_width"])):
        artifact = export(scaled_model(Shuffling, scale=scale, multiple=4), tmp_path)
        dims = artifact.proto.graph.output[0].type.tensor_type.shape.dim
        assert [dim.dim_param for dim in dims[2:]] == names
        assert artifact.manifest.output.shape == ("batch", 3, *names)


def test_nothing_is_inserted_where_every_size_fits(tmp_path: Path) -> None:
    artifact = export(scaled_model(Shuffling, scale=2), tmp_path)
    assert not {"Pad", "Slice"} & {node.op_type for node in artifact.proto.graph.node}
    onnx.checker.check_model(artifact.proto, full_check=True)


@pytest.mark.parametrize("square", [False, True])
def test_a_fixed_size_is_padded_by_constants(square: bool, tmp_path: Path) -> None:
    model = scaled_model(Shuffling, scale=2, multiple=8, minimum=30, square=square, channels=1)
    artifact = export(model, tmp_path, (2, 1, 21, 45))
    assert artifact.manifest.output.shape == (2, 1, 42, 90)
    assert "Shape" not in {node.op_type for node in artifact.proto.graph.node}
    found, expected = outputs(artifact, model, (2, 1, 21, 45))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_shape_of_other_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeblurExportError, match="1 channel, not 3 as in 1x3x32x48; use 1x1x32x48"):
        export(scaled_model(Shuffling, channels=1), tmp_path, (1, 3, 32, 48))
