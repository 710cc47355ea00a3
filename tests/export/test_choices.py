"""Choices of a graph that nothing holds are noted, with their modules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from deblur_export.artifact import read_artifact
from deblur_export.export.choices import notes_on_choices
from deblur_export.export.images.cases import random_cases
from deblur_export.export.parity.verify import verify
from deblur_export.export.pipeline import ExportOptions, export_onnx, trace_model
from deblur_export.models.checkpoint import Foreign, LoadedModel
from deblur_export.models.image_spec import ImageSpec
from tests.export import traps

SHAPE = (1, 3, 16, 24)


class TopAttention(nn.Module):
    """Attends to the four largest values of a row."""

    def forward(self, x: Tensor) -> Tensor:
        least = x.topk(4, dim=-1).values[..., -1:]
        return torch.where(x >= least, x, torch.zeros_like(x))


class Chooses(traps.Convolution):
    def __init__(self) -> None:
        super().__init__()
        self.attention = TopAttention()

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2 if x.shape[-1] > 2 else 1  # a choice by the size is none
        result: Tensor = self.attention(super().forward(x))
        return result + x[..., :1] * half


def foreign(net: nn.Module) -> LoadedModel:
    model = traps.loaded(net, ImageSpec(8))
    return replace(model, foreign=Foreign("callable", "a test", None, None, {}))


def test_choices_by_the_image_are_noted_with_their_module(tmp_path: Path) -> None:
    model = foreign(Chooses())
    path = tmp_path / "toy.onnx"
    told: list[str] = []
    export_onnx(model, ExportOptions(shape=SHAPE), path, told.append)
    (note,) = (line for line in told if line.startswith("discrete choices"))
    assert "TopK in attention, GreaterOrEqual in attention;" in note
    artifact = read_artifact(path)
    assert artifact.manifest.noted == (note,)
    assert note in verify(artifact, model, random_cases(SHAPE)[:1]).notes


def test_choices_that_are_held_and_networks_without_any_are_not_noted() -> None:
    traced = trace_model(foreign(Chooses()), ExportOptions(shape=SHAPE))
    assert notes_on_choices(traced.graph, ["attention"]) == ()
    plain = trace_model(foreign(traps.InPlace()), ExportOptions(shape=SHAPE))
    assert plain.notes == ()
