"""AIBNet's HFSBlock: channel attention on high frequencies, at four degrees of sparsity (Gao and
Dang 2025, arXiv:2502.20880).

A reconstruction: Eq. 5 writes zeros where the mask removes a logit, but the text calls the matrix
after the softmax sparse. Logits are therefore removed before the softmax, as in TKSA (Chen et al.,
"Learning A Sparse Transformer Network for Effective Image Deraining", 2023), whose ratios and
rounding are used as well.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from deblur_export.models.blocks.aibnet_attention import ChannelAttention, logit_bound
from deblur_export.models.blocks.aibnet_decoupler import Decoupler
from deblur_export.models.blocks.decision import Decision, Inputs

DEGREES = 4


def top_counts(channels: int) -> tuple[int, ...]:
    """Number of logits that each of the four degrees keeps in a row: the floor of C times 1/2, 2/3,
    3/4 and 4/5."""
    return tuple(channels * i // (i + 1) for i in range(1, DEGREES + 1))


class Degrees(Decision):
    """Computes how many of the four degrees keep each logit; the sets are nested.

    A logit is a sum of products over all pixels. In arithmetic of unit roundoff u, a sum of P
    products is wrong by at most about P u times the sum of their absolute values, which
    Cauchy-Schwarz bounds by |q||k|; rounding q and k before adds 2 u |q||k| (Higham, Accuracy and
    Stability of Numerical Algorithms, section 3.1). Where the products cancel, as after training,
    that is far above u times the sum itself, and the largest logit of the row does not measure it.
    Distances are therefore relative to |q||k|, the upper bound of the logits of a row.
    """

    tolerance = 1e-4
    min_flips = 2  # one logit is replaced by another

    def __init__(self, normalize_qk: bool = False) -> None:
        super().__init__()
        self.normalize_qk = normalize_qk

    def forward(self, logits: Tensor, query: Tensor, key: Tensor, b: Tensor | None) -> Tensor:
        """Logits [N, C, C] -> 0..4 in the dtype of the logits, [N, C, C]. The other arguments, as
        in `ChannelAttention.logits`, are for `distance` only."""
        return self.survives(logits).to(logits.dtype).sum(dim=-2)

    def survives(self, logits: Tensor) -> Tensor:
        """Which logits [N, C, C] each degree keeps, bool [N, C, 4, C]."""
        return logits.unsqueeze(-2) >= self.thresholds(logits).unsqueeze(-1)

    def thresholds(self, logits: Tensor) -> Tensor:
        """The lowest logit of each row that each degree keeps, [N, C, 4], by a single TopK."""
        counts = top_counts(logits.shape[-1])
        largest = logits.topk(counts[-1], dim=-1).values
        last = torch.tensor(counts, device=logits.device) - 1
        return largest.index_select(-1, last)

    def is_choice(self, own: Tensor, other: Tensor) -> bool:
        return bool(((other >= 0) & (other <= DEGREES) & (other == other.round())).all())

    def differences(self, inputs: Inputs, own: Tensor, other: Tensor) -> Tensor:
        return own != other

    def distance(self, inputs: Inputs, own: Tensor, other: Tensor) -> Tensor:
        """[N, C, C], the distance to the farthest threshold between the two choices."""
        logits: Tensor = inputs[0]
        query, key, b = inputs[1:]
        crossed = in_sets(own) != in_sets(other)
        away = (logits.unsqueeze(-2) - self.thresholds(logits).unsqueeze(-1)).abs()
        return (away * crossed).amax(dim=-2) / logit_bound(query, key, b, self.normalize_qk)


def in_sets(degrees: Tensor) -> Tensor:
    """Convert degrees [N, C, C] to the four nested sets, bool [N, C, 4, C], the smallest first."""
    needed = torch.arange(DEGREES, 0, -1, device=degrees.device).unsqueeze(-1)
    return degrees.unsqueeze(-2) >= needed


def sparse_softmax(logits: Tensor, degrees: Tensor, scale: Tensor) -> Tensor:
    """Weighted sum of four softmaxes over the largest logits of each row, with one exponential.

    Args:
        logits: [N, C, C].
        degrees: [N, C, C], number of softmaxes that include each logit.
        scale: [4], the factors of the softmaxes.

    Returns:
        [N, C, C]; each row sums to the sum of `scale`.
    """
    mask = in_sets(degrees).to(logits.dtype)
    largest = logits.amax(dim=-1, keepdim=True)
    exponential = (logits - largest).exp().unsqueeze(-2) * mask
    total = exponential.sum(dim=-1, keepdim=True)
    return (exponential * (scale.unsqueeze(-1) / total)).sum(dim=-2)


class HFSBlock(ChannelAttention):
    """x plus the sparse channel attention of its high frequencies, without output layer.

    Args:
        channels: C, a multiple of 8.
        filter_size: kernel size of the decoupler; 5 fits the published parameters, and the default
            of FSNet is 3.
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
