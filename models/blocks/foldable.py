"""How a block tells the reparameterization passes which parameters feed which layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn


class Foldable(nn.Module):
    """A block with parameters that can be folded into a neighbouring layer for inference.

    Names are attributes of the block, dotted for inner modules; a layer is an `nn.Conv2d` or
    `nn.Linear`.
    """

    # (norm, layer, ...): the 1x1 layers are the only readers of the norm's output. The norm's
    # weight and bias become None; a layer without a bias gets one.
    layer_norms: ClassVar[Sequence[tuple[str, ...]]] = ()
    # norm -> why its affine part must stay
    layer_norms_kept: ClassVar[Mapping[str, str]] = {}
    # (scale, layer): a per-channel factor on the output of `layer`, which becomes None.
    residual_scales: ClassVar[Sequence[tuple[str, str]]] = ()
