"""The mixture of experts at the end of every stage of DHNet, conditioned on the degradation of the
image.

A reconstruction; see `models/dhnet.py`. The paper states that the experts are depth-wise separable
convolutions of five sizes (Table 6). That every router has its own experts follows from the
published multiply-adds, and that it has one weight per expert and image from the wording.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from deblur_export.models.blocks.naf import GlobalAveragePool

KERNELS = (1, 3, 5, 7, 9)


class Expert(nn.Module):
    """A linear expert: depth-wise k x k, then 1x1. `depthwise` is None after it is folded into the
    1x1 (k = 1)."""

    depthwise: nn.Conv2d | None

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return self.pointwise(x if self.depthwise is None else self.depthwise(x))  # type: ignore[no-any-return]


class DDRE(nn.Module):
    """x + sum over routers r and experts e of p[r, e] expert[r, e](x); all experts are computed.

    p[r] is a softmax over the experts of router r for each image, computed from the means over the
    image of the features and, if there is a prior, of its features.

    For inference the routers can be merged into one linear layer of R*5 rows (`routers` then has
    one member), and the experts of size 1 into one 1x1 convolution with weights that depend on the
    image.

    Args:
        channels: C.
        prior_channels: number of channels of the prior at this scale; 0 without a prior.
        routers: R, the number of routers.
    """

    def __init__(self, channels: int, prior_channels: int = 0, routers: int = 3) -> None:
        super().__init__()
        self.pool = GlobalAveragePool()
        self.routers = nn.ModuleList(
            nn.Linear(channels + prior_channels, len(KERNELS)) for _ in range(routers)
        )
        self.experts = nn.ModuleList(
            nn.ModuleList(Expert(channels, kernel) for kernel in KERNELS) for _ in range(routers)
        )

    @property
    def grid(self) -> list[list[Expert]]:
        """The experts of each router."""
        return [cast("list[Expert]", list(cast(nn.ModuleList, row))) for row in self.experts]

    def forward(self, x: Tensor, prior: Tensor | None = None) -> Tensor:
        """Features [N, C, H, W] and the means of the prior [N, P, 1, 1] -> [N, C, H, W]."""
        p = self.router_weights(x, prior)
        merged = all(experts[0].depthwise is None for experts in self.grid)
        y = self.add_merged_experts(x, p[:, :, 0]) if merged else x
        experts = [expert for experts in self.grid for expert in experts]
        weights = p.view(-1, len(experts), 1, 1).split(1, dim=1)  # type: ignore[no-untyped-call]
        for weight, expert in zip(weights, experts, strict=True):
            if expert.depthwise is not None:
                y = y + weight * expert(x)
        return y

    def router_weights(self, x: Tensor, prior: Tensor | None) -> Tensor:
        """p [N, R, 5], the weights that each router gives to its experts."""
        means = self.pool(x)
        if prior is not None:
            means = torch.cat([means, prior], dim=1)
        scores = torch.cat([router(means.flatten(1)) for router in self.routers], dim=1)
        return scores.view(-1, len(self.experts), len(KERNELS)).softmax(dim=2)

    def add_merged_experts(self, x: Tensor, p: Tensor) -> Tensor:
        """x plus the experts of size 1 as one product: (I + sum_r p_r W_r) x + sum_r p_r b_r.

        x [N, C, H, W] and p [N, R] -> [N, C, H, W].
        """
        batch, channels = x.shape[:2]
        layers = [experts[0].pointwise for experts in self.grid]
        weights = torch.stack([layer.weight.flatten() for layer in layers])
        biases = torch.stack([cast(Tensor, layer.bias) for layer in layers])
        identity = torch.eye(channels, dtype=x.dtype, device=x.device)
        matrix = (p @ weights).view(batch, channels, channels) + identity
        y = (matrix @ x.flatten(2)).view_as(x)
        return y + (p @ biases).view(batch, channels, 1, 1)
