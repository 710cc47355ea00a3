"""Prepare a network for export: apply and verify every exact fold."""

from __future__ import annotations

from collections.abc import Callable

import torch

from deblur_export.export.reparam import EXACT_PASSES
from deblur_export.export.reparam.infra import reparameterize
from deblur_export.manifest_blocks import PassReport
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.models.image_spec import ImageSpec

Progress = Callable[[str], None]
PROBE_SIDE = 40  # smallest side in pixels, about, of the image that folds are proved on


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
    generator = torch.Generator().manual_seed(0)
    shape = 2, model.images.channels, *probe_size(model.images)
    probe = torch.rand(shape, generator=generator)
    return reparameterize(
        model.net, EXACT_PASSES, (probe,), progress=lambda name: progress(f"verifying {name}")
    )


def probe_size(images: ImageSpec) -> tuple[int, int]:
    """Height and width in pixels of a small image that is not square and, unless the network takes
    every size, has to be padded on both sides."""
    multiple = images.multiple
    count = max(3, -(-max(PROBE_SIDE, images.minimum + multiple) // multiple))
    return count * multiple - multiple // 2, (count - 1) * multiple - multiple // 3
