"""The blur kernel of every pixel, as UFPNet estimates it (Fang et al. 2023).

"Self-Supervised Non-Uniform Kernel Estimation with Flow-Based Motion Prior for Blind Image
Deblurring", CVPR 2023, Sec. 3. A U-Net predicts a latent code and its uncertainty for each pixel. A
normalizing flow (FKP, Liang et al. 2021, arXiv:2103.15977; affine coupling of RealNVP, Dinh et al.
2017, arXiv:1605.08803, Eq. 7 and 8), trained in advance on motion kernels, converts a code to a
k x k kernel. Parameter names are those of the official code (Fangzhenxuan/UFPDeblur).

All maps are [N, k*k, H, W]: the flow is a perceptron at each pixel, so its linear layers are
computed as 1x1 convolutions, and no matrix [N*H*W, k*k] is formed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

HIDDEN = 25  # channels inside a coupling layer
COUPLINGS = 5
EPS = 1e-5  # of the flow's batch normalization
ALPHA = 1e-6  # in training, kernel values are mapped to alpha .. 1 - alpha before the logit


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


class ResBlock(nn.Module):
    """x plus two 3x3 convolutions of x, with a ReLU before each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(), conv3x3(channels, channels), nn.ReLU(), conv3x3(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)  # type: ignore[no-any-return]


class CodeEncoder(nn.Module):
    """One level of the encoder: returns features at half the size, and the skip connection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.Conv_head = conv3x3(inputs, outputs)
        self.ResBlock1 = ResBlock(outputs)
        self.ResBlock2 = ResBlock(outputs)
        self.downsample = conv3x3(outputs, outputs, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.ResBlock2(self.ResBlock1(self.Conv_head(x))).relu()
        return self.downsample(skip), skip


class CodeMiddle(nn.Module):
    """Five 3x3 convolutions, each with a ReLU, at a quarter of the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(5):
            layers += [conv3x3(outputs if number else inputs, outputs), nn.ReLU()]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class CodeDecoder(nn.Module):
    """One level of the decoder; the skip connection, of even size, is concatenated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.Conv_t = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        self.Conv_head = conv3x3(2 * outputs, outputs)
        self.ResBlock1 = ResBlock(outputs)
        self.ResBlock2 = ResBlock(outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.Conv_head(torch.cat([self.Conv_t(x), skip], dim=1))
        return self.ResBlock2(self.ResBlock1(x)).relu()  # type: ignore[no-any-return]


def standardized_softmax(logits: Tensor) -> Tensor:
    """Softmax over the channels of [N, C, H, W], then (c - mean) / std over the channels, with
    unbiased std.

    The denominator of the softmax cancels and is not computed, so that the values here are between
    0 and 1 instead of near 1 / 361.
    """
    weight = (logits - logits.amax(dim=1, keepdim=True)).exp()
    deviation = weight - weight.mean(dim=1, keepdim=True)
    variance = (deviation * deviation).sum(dim=1, keepdim=True) / (logits.shape[1] - 1)
    return deviation / variance.sqrt()


class CodeTail(nn.Module):
    """Computes the code and its uncertainty from the decoder features."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            conv3x3(channels, channels), nn.ReLU(), conv3x3(channels, outputs)
        )
        self.var = nn.Sequential(
            conv3x3(channels, channels), nn.ReLU(), conv3x3(channels, outputs), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return standardized_softmax(self.mean(x)), self.var(x).mean(dim=1, keepdim=True)


class CodeEstimator(nn.Module):
    """U-Net of two levels from an image to latent kernel codes (official name: `kernel_extra`)."""

    def __init__(self, kernel_size: int, width: int) -> None:
        super().__init__()
        self.Encoding_Block1 = CodeEncoder(3, width)
        self.Encoding_Block2 = CodeEncoder(width, 2 * width)
        self.Conv_mid = CodeMiddle(2 * width, 4 * width)
        self.Decoding_Block1 = CodeDecoder(4 * width, 2 * width)
        self.Decoding_Block2 = CodeDecoder(2 * width, width)
        self.Conv_tail = CodeTail(width, kernel_size**2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate code and uncertainty.

        Args:
            image: [N, 3, H, W] in 0..1; H and W are multiples of 4.

        Returns:
            code [N, k*k, H, W] with mean 0 and standard deviation 1 at each pixel, and sigma
            [N, 1, H, W] in 0..1.
        """
        x, skip1 = self.Encoding_Block1(image)
        x, skip2 = self.Encoding_Block2(x)
        x = self.Decoding_Block1(self.Conv_mid(x), skip2)
        return self.Conv_tail(self.Decoding_Block2(x, skip1))  # type: ignore[no-any-return]


def per_channel(values: Tensor) -> Tensor:
    """[C] -> [1, C, 1, 1]."""
    return values.view(1, -1, 1, 1)


def coupling_net(channels: int, activation: type[nn.Module]) -> nn.Sequential:
    """Three linear layers with the numbering of the official code."""
    return nn.Sequential(
        nn.Linear(channels, HIDDEN),
        activation(),
        nn.Linear(HIDDEN, HIDDEN),
        activation(),
        nn.Linear(HIDDEN, channels),
    )


def run_pixelwise(net: nn.Sequential, x: Tensor) -> Tensor:
    """Apply a perceptron of linear layers at every pixel of x [N, C, H, W]."""
    for layer in net:
        if isinstance(layer, nn.Linear):
            x = F.conv2d(x, layer.weight[:, :, None, None], layer.bias)
        else:
            x = layer(x)
    return x


class Coupling(nn.Module):
    """Affine coupling: channels where `mask` is 1 are unchanged and determine the affine map of the
    others."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.s_net = coupling_net(len(mask), nn.Tanh)
        self.t_net = coupling_net(len(mask), nn.ReLU)

    def inverse(self, u: Tensor) -> Tensor:
        """m u + (1 - m) (u exp(s(m u)) + t(m u)); [N, C, H, W]."""
        mask = per_channel(self.mask)
        kept = mask * u
        log_scale, shift = run_pixelwise(self.s_net, kept), run_pixelwise(self.t_net, kept)
        return kept + (1 - mask) * (u * log_scale.exp() + shift)


class FlowBatchNorm(nn.Module):
    """The batch normalization of the flow, which always uses its running statistics."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_gamma = Parameter(torch.zeros(channels))
        self.beta = Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def scale(self) -> Tensor:
        """The factor [C] of the inverse."""
        return torch.exp(-self.log_gamma) * torch.sqrt(self.running_var + EPS)

    def inverse(self, y: Tensor) -> Tensor:
        """(y - beta) scale + mean; [N, C, H, W]."""
        return (y - per_channel(self.beta)) * per_channel(self.scale()) + per_channel(
            self.running_mean
        )


class KernelPrior(nn.Module):
    """The flow from code to kernel (official name: `flow`).

    `base_dist_mean`, `base_dist_var` and `kernel_size` are in every checkpoint, but are not used.
    """

    alpha: Tensor
    normalization: Tensor

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        channels = kernel_size**2
        for name, value in (("kernel_size", kernel_size), ("alpha", ALPHA), ("normalization", 1)):
            self.register_buffer(name, torch.full((1,), float(value)))
        self.register_buffer("base_dist_mean", torch.zeros(channels))
        self.register_buffer("base_dist_var", torch.ones(channels))
        layers: list[nn.Module] = []
        for number in range(COUPLINGS):
            mask = (torch.arange(channels) + number).float() % 2
            layers += [Coupling(mask), FlowBatchNorm(channels)]
        self.net = nn.Sequential(*layers)

    def arrange(self, noise: Tensor) -> Tensor:
        """Put the channels of the noise in the order of the input of `forward`."""
        return noise

    def forward(self, z: Tensor) -> Tensor:
        """Codes [N, k*k, H, W] -> kernels [N, k*k, H, W] with values in 0..1."""
        for layer in reversed(list(self.net)):
            assert isinstance(layer, Coupling | FlowBatchNorm)
            z = layer.inverse(z)
        return to_kernel(z, self.alpha, self.normalization)


def to_kernel(logit: Tensor, alpha: Tensor, normalization: Tensor) -> Tensor:
    """Convert logits to kernel values: the sigmoid, rescaled from alpha .. 1 - alpha to 0 .. 1."""
    return (logit.sigmoid() - alpha) / (1 - 2 * alpha) * normalization
