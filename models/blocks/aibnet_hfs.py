"""AIBNet's HFSBlock: channel attention on high frequencies, thinned out at four degrees.

(Gao and Dang 2025, arXiv:2502.20880.) A reconstruction: Eq. 5 writes zeros where the mask removes a
logit, the text calls the matrix after the softmax sparse; so logits are removed before it, as in
TKSA (Chen et al., "Learning A Sparse Transformer Network for Effective Image Deraining", 2023).
Its ratios and floors are used as well.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from deblur_export.models.blocks.aibnet_attention import ChannelAttention
from deblur_export.models.blocks.aibnet_decoupler import Decoupler

DEGREES = 4


def kept(channels: int) -> tuple[int, ...]:
    """How many logits of a row survive at the four degrees: floor of C times 1/2, 2/3, 3/4, 4/5."""
    return tuple(channels * i // (i + 1) for i in range(1, DEGREES + 1))


def sparse_softmax(logits: Tensor, scale: Tensor) -> Tensor:
    """Sum of four softmaxes over the largest logits of each row.

    The sets are nested: one TopK gives all thresholds and one exponential serves all sums.

    Args:
        logits: [N, C, C].
        scale: [4], a factor for each degree.

    Returns:
        [N, C, C], rows sum to the sum of `scale`.
    """
    counts = kept(logits.shape[-1])
    largest = logits.topk(counts[-1], dim=-1).values
    last = torch.tensor(counts, device=logits.device) - 1
    thresholds = largest.index_select(-1, last)
    mask = logits.unsqueeze(-2) >= thresholds.unsqueeze(-1)  # [N, C, 4, C]
    exponential = (logits - largest[..., :1]).exp().unsqueeze(-2) * mask.to(logits.dtype)
    total = exponential.sum(dim=-1, keepdim=True)
    return (exponential * (scale.unsqueeze(-1) / total)).sum(dim=-2)


class HFSBlock(ChannelAttention):
    """x plus the sparse channel attention of its high frequencies; no output layer.

    Args:
        channels: C, a multiple of 8.
        filter_size: of the decoupler; 5 fits the published parameters, FSNet's default is 3.
        normalize_qk: as in `ChannelAttention`.
    """

    def __init__(self, channels: int, filter_size: int, normalize_qk: bool = False) -> None:
        super().__init__(channels, 3, normalize_qk)
        self.decoupler = Decoupler(channels, filter_size)
        self.lambda_ = Parameter(torch.full((DEGREES,), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]; in training mode N must be at least 2."""
        query, key, value = self.parts(self.decoupler(x))
        weights = sparse_softmax(self.logits(query, key), self.lambda_)
        return x + (weights @ value).view_as(x)
