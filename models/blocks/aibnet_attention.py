"""The base of AIBNet's two channel attentions, SFEM and HFSBlock.

The paper divides Q K^T by a learned b and does not normalise Q and K. The product sums over all
pixels, so the logits grow with the size of the image: after training on crops of 256 x 256 pixels,
the softmax is sharper on larger images. With `normalize_qk`, the logits are divided by the norms
over the pixels, as in TKSA and Restormer, which deviates from the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter

EPS = 1e-12


def pixel_norm(x: Tensor) -> Tensor:
    """L2 norm over the pixels, [N, C, P] -> [N, C, 1], as a matrix product for float32 accuracy."""
    squared = x.unsqueeze(-2) @ x.unsqueeze(-1)
    return squared.squeeze(-1).sqrt().clamp(min=EPS)


def logit_bound(query: Tensor, key: Tensor, b: Tensor | None, normalize_qk: bool) -> Tensor:
    """Upper bound of the absolute logits of each row (Cauchy-Schwarz), two [N, C, P] ->
    [N, C, 1]."""
    norms = pixel_norm(query), pixel_norm(key).amax(dim=1, keepdim=True)
    largest = torch.ones_like(norms[0]) if normalize_qk else norms[0] * norms[1]
    return largest if b is None else largest / b.abs()


class ChannelAttention(nn.Module):
    """Base class: a 1x1 and a depth-wise 3x3 compute queries, keys and values; logits are C x C.

    `b` ([1]) divides the logits and is None after it is folded into the queries' depth-wise
    filters.

    Args:
        channels: C.
        parts: number of C-channel features that `dw` computes.
        normalize_qk: divide queries and keys by their L2 norms over the pixels.
    """

    query_parts: ClassVar[Sequence[int]] = (0,)  # indices of the parts that are queries

    b: Parameter | None

    def __init__(self, channels: int, parts: int, normalize_qk: bool = False) -> None:
        super().__init__()
        wide = parts * channels
        self.channels = channels
        self.normalize_qk = normalize_qk
        self.qkv = nn.Conv2d(channels, wide, 1)
        self.dw = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.b = Parameter(torch.full((1,), float(channels) ** 0.5))

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """[N, C, H, W] -> queries, keys and values, each [N, C, H*W]."""
        return self.dw(self.qkv(x)).flatten(2).split(self.channels, dim=1)  # type: ignore[no-any-return]

    def logits(self, query: Tensor, key: Tensor) -> Tensor:
        """Two [N, C, P] -> [N, C, C]; needs float32, as sums reach 1e6 for a 720p image."""
        product = query @ key.transpose(1, 2)
        if self.normalize_qk:
            product = product / (pixel_norm(query) * pixel_norm(key).transpose(1, 2))
        return product if self.b is None else product / self.b
