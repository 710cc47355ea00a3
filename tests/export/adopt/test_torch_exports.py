"""Files of torch.onnx.export, by both of its exporters."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import deblur_export


class Net(nn.Module):
    """Accepts multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 8, 4, stride=4)
        self.up = nn.ConvTranspose2d(8, 8, 4, stride=4)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.norm(torch.relu(self.first(image)))
        features = features + self.up(torch.relu(self.down(features)))
        return image + self.last(nn.functional.dropout(features, 0.1, self.training))


@pytest.mark.parametrize("dynamo", [True, False])
def test_both_exporters(dynamo: bool, tmp_path: Path) -> None:
    path, image = tmp_path / "theirs.onnx", torch.zeros(1, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            free = {2: 4 * torch.export.Dim("h"), 3: 4 * torch.export.Dim("w")}
            torch.onnx.export(
                Net().eval(), (image,), path, dynamo=True, dynamic_shapes=(free,), verbose=False
            )
        else:
            axes = {"image": {0: "n", 2: "h", 3: "w"}, "result": {0: "n", 2: "h", 3: "w"}}
            torch.onnx.export(
                Net().eval(),
                (image,),
                path,
                dynamo=False,
                input_names=["image"],
                output_names=["result"],
                dynamic_axes=axes,
            )
    artifact = deblur_export.adopt(path, tmp_path / "ours.onnx")
    assert artifact.manifest.input.multiple == 4
    assert artifact.manifest.input.batch == (1 if dynamo else None)
    assert deblur_export.verify(artifact).passed
    half = deblur_export.adopt(path, tmp_path / "half.onnx", precision="fp16")
    assert deblur_export.verify(half).passed
