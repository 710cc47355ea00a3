"""A base class by which blocks tell the reparameterization passes what can be folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn


class Foldable(nn.Module):
    """A block with parameters that can be folded into an adjacent layer for inference.

    Names are attributes of the block, dotted for submodules; a layer is an `nn.Conv2d` or
    `nn.Linear`.

    Attributes:
        layer_norms: tuples (norm, layer, ...) where these 1x1 layers are the only consumers of the
            norm's output. Folding sets the norm's weight and bias to None, and a layer without a
            bias gets one.
        unfolded_layer_norms: norms whose affine part cannot be folded, and why.
        residual_scales: tuples (scale, layer) of a per-channel factor on the output of a layer.
            Folding sets the factor to None.
    """

    layer_norms: ClassVar[Sequence[tuple[str, ...]]] = ()
    unfolded_layer_norms: ClassVar[Mapping[str, str]] = {}
    residual_scales: ClassVar[Sequence[tuple[str, str]]] = ()
