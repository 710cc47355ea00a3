"""The encoder of UFPNet (Fang et al., CVPR 2023): that of NAFNet, conditioned on the blur kernels.

Architecture and parameter names follow the official code (Fangzhenxuan/UFPDeblur), whose encoder
other networks use as a frozen feature extractor; see `kernel_prior.py` for the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deblur_export.models.blocks.folded_flow import FoldedFlow
from deblur_export.models.blocks.kernel_prior import CodeEstimator, CodeTail, KernelPrior, conv3x3
from deblur_export.models.blocks.naf import NAFBlock, add_scaled, tlc_window


class KernelAttention(nn.Module):
    """Features weighted according to the kernels: x + p(x) * sigmoid(conv([p(x), q(kernel)]))."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.conv_1 = nn.Sequential(conv3x3(channels, channels), nn.GELU())
        self.conv_kernel = nn.Sequential(
            conv3x3(taps, channels), nn.GELU(), conv3x3(channels, channels), nn.GELU()
        )
        self.conv_2 = nn.Sequential(conv3x3(2 * channels, channels), nn.Sigmoid())

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        """x [N, C, H, W] and kernel [N, k*k, H, W] -> [N, C, H, W]."""
        features = self.conv_1(x)
        attention = self.conv_2(torch.cat([features, self.conv_kernel(kernel)], dim=1))
        return x + features * attention  # type: ignore[no-any-return]


class KernelBlock(NAFBlock):
    """NAFNet's block after a kernel attention; its first residual adds the input of the block."""

    def __init__(self, channels: int, taps: int, window: int | None = None) -> None:
        super().__init__(channels, window)
        self.kernel_atttion = KernelAttention(channels, taps)  # the official spelling

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:  # type: ignore[override]
        """x [N, C, H, W] and kernel [N, k*k, H, W] -> [N, C, H, W]."""
        informed = self.kernel_atttion(x, kernel)
        x = self.attend(x, self.gate(self.conv2(self.conv1(self.norm1(informed)))))
        return add_scaled(x, self.conv5(self.gate(self.conv4(self.norm2(x)))), self.gamma)


class KernelStage(nn.Sequential):
    """An encoder stage whose blocks read the kernels."""

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:  # type: ignore[override]
        for block in self:
            x = block(x, kernel)
        return x


class UFPEncoder(nn.Module):
    """The kernel prior, first convolution, encoder stages and middle stage of UFPNet.

    A stage reads the kernels if it has exactly one block (as in the official code). The size of the
    kernel map is halved from stage to stage up to the last one that reads it; `kernel_down` has
    only the convolutions for these.

    Args:
        width: channels at full resolution; they double at each stage.
        encoder_blocks, middle_blocks: number of blocks in each stage.
        kernel_size: k, side of the blur kernels in pixels.
        prior_width: channels of the code estimator at full resolution.
        train_size: side of the training crops in pixels, for local pooling (TLC); None pools
            globally.
    """

    def __init__(
        self,
        width: int = 64,
        encoder_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        kernel_size: int = 19,
        prior_width: int = 64,
        train_size: int | None = None,
    ) -> None:
        super().__init__()
        self.taps = kernel_size**2
        readers = [level for level, count in enumerate(encoder_blocks) if count == 1]
        self.last_kernel_level = max(readers, default=0)
        self.kernel_extra = CodeEstimator(kernel_size, prior_width)
        self.flow: KernelPrior | FoldedFlow = KernelPrior(kernel_size)
        self.intro = conv3x3(3, width)
        self.encoders = nn.ModuleList()
        self.downs = nn.ModuleList()
        for level, count in enumerate(encoder_blocks):
            channels, window = width * 2**level, tlc_window(train_size, level)
            self.encoders.append(self.encoder_stage(channels, count, window))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
        channels, window = 2 * channels, tlc_window(train_size, len(encoder_blocks))
        self.middle_blks = nn.Sequential(
            *(NAFBlock(channels, window) for _ in range(middle_blocks))
        )
        self.kernel_down = nn.ModuleList(
            nn.Conv2d(self.taps, self.taps, 2, stride=2) for _ in range(self.last_kernel_level)
        )

    def encoder_stage(self, channels: int, count: int, window: int | None) -> nn.Sequential:
        """Build the blocks of one encoder stage."""
        if count == 1:
            return KernelStage(KernelBlock(channels, self.taps, window))
        return nn.Sequential(*(NAFBlock(channels, window) for _ in range(count)))

    def kernel_readers(self) -> list[nn.Conv2d]:
        """The convolutions that read the flow's kernels."""
        first = self.encoders[0]
        layers = [
            block.kernel_atttion.conv_kernel[0]
            for block in first.children()
            if isinstance(block, KernelBlock)
        ]
        if self.last_kernel_level > 0:
            layers.append(self.kernel_down[0])
        return [layer for layer in layers if isinstance(layer, nn.Conv2d)]

    def forward(self, image: Tensor, noise: Tensor | None = None) -> list[Tensor]:
        """Compute the features of every scale.

        Args:
            image: [N, 3, H, W], RGB in 0..1; H and W are multiples of 16.
            noise: [N, k*k, H, W], standard normal, for the uncertainty of the kernel codes. The
                official code draws it at every call, also at test time. None is zero in eval mode
                and drawn at random in training mode.

        Returns:
            Outputs of the encoder stages before their strided convolution, [N, w, H, W] to
            [N, 8w, H/8, W/8], and of the middle stage, [N, 16w, H/16, W/16].

        Raises:
            ValueError: the noise has another shape.
        """
        return self.encode(image, self.kernels(image, noise))

    def kernels(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """The blur kernels of the pixels, [N, k*k, H, W]. The prior is frozen in training."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.training):
            return self.estimate_kernels(image, noise)

    def estimate_kernels(self, image: Tensor, noise: Tensor | None) -> Tensor:
        """Run the prior: z = code sqrt(1 - sigma^2) + noise sigma, then the flow."""
        code, sigma = self.kernel_extra(image)
        if noise is None and self.training:
            noise = torch.randn_like(code)
        if noise is not None and noise.shape != code.shape:
            raise ValueError(f"noise has shape {tuple(noise.shape)}, not {tuple(code.shape)}")
        z = code * (1 - sigma * sigma).sqrt()
        if noise is not None:
            z = z + self.flow.arrange(noise) * sigma
        return self.flow(z)  # type: ignore[no-any-return]

    def encode(self, image: Tensor, kernel: Tensor) -> list[Tensor]:
        """Like `forward`, with given kernels [N, k*k, H, W]."""
        x, features = self.intro(image), []
        for level, (stage, down) in enumerate(zip(self.encoders, self.downs, strict=True)):
            x = stage(x, kernel) if isinstance(stage, KernelStage) else stage(x)
            features.append(x)
            x = down(x)
            if level < self.last_kernel_level:
                kernel = self.kernel_down[level](kernel)
        return [*features, self.middle_blks(x)]


def amplify_prior(net: nn.Module) -> None:
    """Scale random weights so that the kernels of a `UFPEncoder` inside `net` affect its output.

    For `ModelSpec.after_random`: kernel values vary by 0.1, not by 1 as the rule for random weights
    assumes, and without scaling all pixels would have nearly the same uncertainty.
    """
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, KernelAttention):
                _scale(module.conv_kernel[0], 8)
                _scale(module.conv_kernel[2], 3)
                _scale(module.conv_2[0], 3)
            elif isinstance(module, CodeTail):
                _scale(module.mean[2], 4)
                _scale(module.var[2], 8)


def _scale(layer: nn.Module, factor: float) -> None:
    layer.get_parameter("weight").mul_(factor)
