"""Prepare a network for export: apply and verify every exact fold."""

from __future__ import annotations

from collections.abc import Callable

import torch

from deblur_export.export.reparam import EXACT_PASSES
from deblur_export.export.reparam.infra import reparameterize
from deblur_export.manifest_blocks import PassReport
from deblur_export.models.checkpoint import LoadedModel

Progress = Callable[[str], None]


def prepare(
    model: LoadedModel, reparam: bool, progress: Progress = lambda step: None
) -> tuple[torch.nn.Module, list[PassReport]]:
    """Reparameterize a network for export.

    Args:
        model: the network; not changed.
        reparam: False returns the network as it is.
        progress: called with a line of text for each step.

    Returns:
        The network and the reports of the passes.

    Raises:
        CheckFailedError: a fold changed the output of the network.
    """
    if not reparam:
        return model.net, []
    multiple, channels = model.images.multiple, model.images.channels
    generator = torch.Generator().manual_seed(0)
    probe = torch.rand(2, channels, 3 * multiple - 7, 2 * multiple + 5, generator=generator)
    return reparameterize(
        model.net, EXACT_PASSES, (probe,), progress=lambda name: progress(f"verifying {name}")
    )
