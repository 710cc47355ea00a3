"""The flow of the kernel prior for inference, on two halves of its channels (see
`kernel_prior.py`).

A coupling layer leaves every other channel unchanged. With the channels sorted, these are a
contiguous half that needs no mask and no copy. Batch normalization is folded into the weights. The
pass `fold_flow` fills these modules.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from deblur_export.models.blocks.kernel_prior import HIDDEN


def pointwise_net(inputs: int, outputs: int, activation: type[nn.Module]) -> nn.Sequential:
    """Three 1x1 convolutions, numbered like the linear layers of a coupling."""
    return nn.Sequential(
        nn.Conv2d(inputs, HIDDEN, 1),
        activation(),
        nn.Conv2d(HIDDEN, HIDDEN, 1),
        activation(),
        nn.Conv2d(HIDDEN, outputs, 1),
    )


class FoldedCoupling(nn.Module):
    """(changed + shift) exp(s(kept)) + t(kept); `shift` is [1, changed, 1, 1]."""

    def __init__(self, kept: int, changed: int) -> None:
        super().__init__()
        self.s_net = pointwise_net(kept, changed, nn.Tanh)
        self.t_net = pointwise_net(kept, changed, nn.ReLU)
        self.shift = Parameter(torch.zeros(1, changed, 1, 1))

    def forward(self, kept: Tensor, changed: Tensor) -> Tensor:
        """[N, kept, H, W] and [N, changed, H, W] -> [N, changed, H, W]."""
        scale = self.s_net(kept).exp()
        return (changed + self.shift) * scale + self.t_net(kept)  # type: ignore[no-any-return]


class FoldedFlow(nn.Module):
    """Converts codes to kernels like `KernelPrior`, with channels in `order` and kernels without
    their last factor.

    The layers around it produce and read the channels in this order, and the weights of the layers
    that read the kernels include the factor. `order` [k*k] begins with the channels that the first
    coupling leaves unchanged.
    """

    order: Tensor
    alpha: Tensor

    def __init__(self, order: Tensor, kept: int, alpha: Tensor, couplings: int) -> None:
        super().__init__()
        self.register_buffer("order", order)
        self.register_buffer("alpha", alpha)
        sizes = [kept, len(order) - kept]
        self.sizes = sizes
        self.couplings = nn.ModuleList(
            FoldedCoupling(sizes[number % 2], sizes[1 - number % 2]) for number in range(couplings)
        )

    def arrange(self, noise: Tensor) -> Tensor:
        """Put the channels of the noise in the order of the input of `forward`."""
        return noise[:, self.order]

    def forward(self, z: Tensor) -> Tensor:
        """Codes [N, k*k, H, W] -> kernels [N, k*k, H, W], both with channels in `order`."""
        kept, changed = torch.split(z, self.sizes, dim=1)
        for coupling in self.couplings:
            kept, changed = coupling(kept, changed), kept
        halves = [changed, kept] if len(self.couplings) % 2 else [kept, changed]
        return torch.cat(halves, dim=1).sigmoid() - self.alpha
