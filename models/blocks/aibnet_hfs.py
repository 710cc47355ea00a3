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

from deblur_export.models.blocks.aibnet_attention import ChannelAttention, logit_bound
from deblur_export.models.blocks.aibnet_decoupler import Decoupler
from deblur_export.models.blocks.decision import Decision, Inputs

DEGREES = 4


def kept(channels: int) -> tuple[int, ...]:
    """How many logits of a row survive at the four degrees: floor of C times 1/2, 2/3, 3/4, 4/5."""
    return tuple(channels * i // (i + 1) for i in range(1, DEGREES + 1))


class Degrees(Decision):
    """At how many of the four degrees each logit survives; the sets are nested.

    A logit is a sum of products over all pixels, which cancel; it is rounded as they are, whatever
    remains of them. So distances are relative to the largest that a logit of the row could be.
    """

    tolerance = 1e-4
    least = 2  # one logit leaves, another comes

    def __init__(self, normalize_qk: bool = False) -> None:
        super().__init__()
        self.normalize_qk = normalize_qk

    def forward(self, logits: Tensor, query: Tensor, key: Tensor, b: Tensor | None) -> Tensor:
        """Logits [N, C, C] -> 0..4, dtype of the logits; what they come from, as in
        `ChannelAttention.logits`, is for `distance` only."""
        return self.survives(logits).to(logits.dtype).sum(dim=-2)

    def survives(self, logits: Tensor) -> Tensor:
        """[N, C, C] -> bool [N, C, 4, C]."""
        return logits.unsqueeze(-2) >= self.thresholds(logits).unsqueeze(-1)

    def thresholds(self, logits: Tensor) -> Tensor:
        """The lowest logit of each row that survives at each degree, [N, C, 4]; by one TopK."""
        counts = kept(logits.shape[-1])
        largest = logits.topk(counts[-1], dim=-1).values
        last = torch.tensor(counts, device=logits.device) - 1
        return largest.index_select(-1, last)

    def is_choice(self, own: Tensor, other: Tensor) -> bool:
        return bool(((other >= 0) & (other <= DEGREES) & (other == other.round())).all())

    def differences(self, inputs: Inputs, own: Tensor, other: Tensor) -> Tensor:
        return own != other

    def distance(self, inputs: Inputs, own: Tensor, other: Tensor) -> Tensor:
        """[N, C, C], to the farthest threshold between the two choices."""
        logits: Tensor = inputs[0]
        query, key, b = inputs[1:]
        crossed = in_sets(own) != in_sets(other)
        away = (logits.unsqueeze(-2) - self.thresholds(logits).unsqueeze(-1)).abs()
        return (away * crossed).amax(dim=-2) / logit_bound(query, key, b, self.normalize_qk)


def in_sets(degrees: Tensor) -> Tensor:
    """Degrees [N, C, C] as the four nested sets, bool [N, C, 4, C], the smallest first."""
    needed = torch.arange(DEGREES, 0, -1, device=degrees.device).unsqueeze(-1)
    return degrees.unsqueeze(-2) >= needed


def sparse_softmax(logits: Tensor, degrees: Tensor, scale: Tensor) -> Tensor:
    """Sum of four softmaxes over the largest logits of each row; one exponential serves all.

    Args:
        logits: [N, C, C].
        degrees: [N, C, C], how many of the softmaxes have a logit in their set.
        scale: [4], a factor for each of them.

    Returns:
        [N, C, C], rows sum to the sum of `scale`.
    """
    mask = in_sets(degrees).to(logits.dtype)
    largest = logits.amax(dim=-1, keepdim=True)
    exponential = (logits - largest).exp().unsqueeze(-2) * mask
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
        self.degrees = Degrees(normalize_qk)
        self.lambda_ = Parameter(torch.full((DEGREES,), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]; in training mode N must be at least 2."""
        query, key, value = self.parts(self.decoupler(x))
        logits = self.logits(query, key)
        degrees = self.degrees(logits, query, key, self.b)
        weights = sparse_softmax(logits, degrees, self.lambda_)
        return x + (weights @ value).view_as(x)
