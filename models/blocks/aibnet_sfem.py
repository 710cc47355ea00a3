"""AIBNet's SFEM and SFDHBlock, the block around it (Gao and Dang 2025, arXiv:2502.20880, Eq. 1).

A reconstruction: in Eq. 1 the attention directly follows the norm, which misses the published
counts by 20 %. NAFNet's complete first half and a second half with a depth-wise 3x3 fit all of
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from deblur_export.models.blocks.aibnet_attention import ChannelAttention
from deblur_export.models.blocks.naf import NAFBlock, add_scaled

A_INIT = 0.8


class SFEM(ChannelAttention):
    """Difference of two channel attentions: out((softmax(Q1 K1'/b) - a softmax(Q2 K2'/b)) V).

    `a` is lambda of the Differential Transformer (Ye et al. 2024, arXiv:2410.05258), without its
    norm: exp(aQ1 aK1) - exp(aQ2 aK2) + 0.8. After folding, `a` ([1]) is a parameter and the vectors
    are None. `project_first` computes (out A) V instead of out(A V), which saves C*C*H*W
    multiply-adds and adds C*C*C.
    """

    query_parts: ClassVar[Sequence[int]] = (0, 2)

    a: Parameter | None
    a_q1: Parameter | None
    a_k1: Parameter | None
    a_q2: Parameter | None
    a_k2: Parameter | None

    def __init__(self, channels: int, normalize_qk: bool = False) -> None:
        super().__init__(channels, 5, normalize_qk)
        self.out = nn.Conv2d(channels, channels, 1)
        self.a_q1, self.a_k1, self.a_q2, self.a_k2 = (
            Parameter(0.1 * torch.randn(channels)) for _ in range(4)
        )
        self.register_parameter("a", None)
        self.project_first = False

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        q1, k1, q2, k2, value = self.parts(x)
        first, second = self.logits(q1, k1), self.logits(q2, k2)
        weights = first.softmax(dim=-1) - self.factor() * second.softmax(dim=-1)
        if not self.project_first:
            return self.out((weights @ value).view_as(x))  # type: ignore[no-any-return]
        assert self.out.bias is not None
        mixed = self.out.weight.flatten(1) @ weights @ value + self.out.bias.unsqueeze(1)
        return mixed.view_as(x)

    def factor(self) -> Tensor:
        """The factor a of the second attention, [1]."""
        if self.a is not None:
            return self.a
        q1, k1, q2, k2 = self.a_q1, self.a_k1, self.a_q2, self.a_k2
        assert q1 is not None and k1 is not None and q2 is not None and k2 is not None
        first, second = (q1 * k1).sum(dim=0, keepdim=True), (q2 * k2).sum(dim=0, keepdim=True)
        return first.exp() - second.exp() + A_INIT


class SFDHBlock(NAFBlock):
    """NAFNet's block with SFEM in parallel to its first half and a depth-wise 3x3 in its second.

    `W` ([1, C, 1, 1], initially one) scales SFEM and is None after folding.
    """

    layer_norms: ClassVar[Sequence[tuple[str, ...]]] = (
        ("norm1", "conv1", "sfem.qkv"),
        ("norm2", "conv4"),
    )
    residual_scales: ClassVar[Sequence[tuple[str, str]]] = (
        *NAFBlock.residual_scales,
        ("W", "sfem.out"),
    )

    W: Parameter | None

    def __init__(
        self, channels: int, window: int | None = None, normalize_qk: bool = False
    ) -> None:
        super().__init__(channels, window)
        self.sfem = SFEM(channels, normalize_qk)
        self.W = Parameter(torch.ones(1, channels, 1, 1))
        self.conv4_dw = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        normed = self.norm1(x)
        x = self.attend(x, self.gate(self.conv2(self.conv1(normed))))
        x = add_scaled(x, self.sfem(normed), self.W)
        hidden = self.conv4_dw(self.conv4(self.norm2(x)))
        return add_scaled(x, self.conv5(self.gate(hidden)), self.gamma)
