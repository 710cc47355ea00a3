"""The network as it is exported: with every exact fold applied and proved, or untouched."""

from __future__ import annotations

from collections.abc import Callable

import torch

from deblur_export.export.reparam import EXACT_PASSES
from deblur_export.export.reparam.infra import reparameterize
from deblur_export.manifest import PassReport
from deblur_export.models.checkpoint import LoadedModel

Progress = Callable[[str], None]


def prepare(
    model: LoadedModel, reparam: bool, progress: Progress = lambda step: None
) -> tuple[torch.nn.Module, list[PassReport]]:
    """The network as it is exported: reparameterized, or untouched."""
    if not reparam:
        return model.net, []
    multiple = model.spec.size_multiple
    generator = torch.Generator().manual_seed(0)
    probe = torch.rand(2, 3, 3 * multiple - 7, 2 * multiple + 5, generator=generator)
    return reparameterize(
        model.net, EXACT_PASSES, (probe,), progress=lambda name: progress(f"proving {name}")
    )
