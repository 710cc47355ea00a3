"""UFPNet: NAFNet with the blur kernel of every pixel as a second input (Fang et al., CVPR 2023).

"Self-Supervised Non-Uniform Kernel Estimation with Flow-Based Motion Prior for Blind Image
Deblurring". Architecture and parameter names follow the official code (Fangzhenxuan/UFPDeblur,
`UFPNet_code_uncertainty`), so that its checkpoints load unchanged. Two of its four convolutions of
the kernel map have no effect on the output (`kernel_down.2` and `.3`); they are in every
checkpoint, are not computed here, and the exporter removes them. The official code adds random
noise to the kernel codes at every call, also at test time, so that the published figures vary with
it; here the noise is an argument and zero by default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from deblur_export.models.blocks.naf import NAFBlock, tlc_window
from deblur_export.models.blocks.padding import pad_to_multiple
from deblur_export.models.blocks.ufp_encoder import UFPEncoder, amplify_prior
from deblur_export.models.image_spec import ImageSpec, Padding
from deblur_export.models.nafnet import STRIDE
from deblur_export.models.nafnet import hyperparameters as nafnet_hyperparameters
from deblur_export.models.spec import ModelSpec, Published

PADDING: Padding = "reflect"


class TrainingOutput(NamedTuple):
    """The inputs of the loss.

    Attributes:
        kernel: [N, H'*W', k, k], the blur kernel of each pixel of the padded image, without
            gradient (the prior is trained in advance).
        restored: [N, 3, H, W] in 0..1.
    """

    kernel: Tensor
    restored: Tensor


class UFPNet(UFPEncoder):
    """The kernel prior, an encoder that reads its kernels, and the decoder of NAFNet.

    Args:
        width, encoder_blocks, middle_blocks, kernel_size, prior_width, train_size: see
            `UFPEncoder`.
        decoder_blocks: number of blocks in each decoder stage.
    """

    def __init__(
        self,
        width: int = 64,
        encoder_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        decoder_blocks: Sequence[int] = (1, 1, 1, 1),
        kernel_size: int = 19,
        prior_width: int = 64,
        train_size: int | None = None,
    ) -> None:
        super().__init__(width, encoder_blocks, middle_blocks, kernel_size, prior_width, train_size)
        for _ in range(len(self.kernel_down), len(self.encoders)):  # not used
            self.kernel_down.append(nn.Conv2d(self.taps, self.taps, 2, stride=2))
        self.ups = nn.ModuleList()
        self.decoders = nn.ModuleList()
        for level, count in reversed(list(enumerate(reversed(decoder_blocks)))):
            channels, window = width * 2**level, tlc_window(train_size, level)
            self.ups.append(
                nn.Sequential(
                    nn.Conv2d(2 * channels, 4 * channels, 1, bias=False), nn.PixelShuffle(2)
                )
            )
            self.decoders.append(nn.Sequential(*(NAFBlock(channels, window) for _ in range(count))))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)

    def forward(  # type: ignore[override]
        self, image: Tensor, noise: Tensor | None = None
    ) -> Tensor | TrainingOutput:
        """Restore a blurred image.

        Args:
            image: [N, 3, H, W], RGB in 0..1, of any size.
            noise: [N, k*k, H', W'] for the padded size, standard normal, for the uncertainty of
                the kernel codes. None is zero in eval mode and drawn at random in training mode.

        Returns:
            In eval mode [N, 3, H, W] in 0..1; in training mode a `TrainingOutput`.
        """
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, STRIDE, PADDING)
        if not self.training:
            return self.forward_padded(padded, noise)[..., :height, :width]
        kernel = self.kernels(padded, noise)
        restored = self.decode(self.encode(padded, kernel), padded)[..., :height, :width]
        side = math.isqrt(self.taps)
        listed = kernel.flatten(2).transpose(1, 2).reshape(len(kernel), -1, side, side)
        return TrainingOutput(listed, restored)

    def forward_padded(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Like `forward` in eval mode, for H and W that are multiples of 16."""
        return self.decode(self.encode(image, self.kernels(image, noise)), image)

    def decode(self, features: Sequence[Tensor], image: Tensor) -> Tensor:
        """Run the decoder: from the features of the encoder to the image [N, 3, H, W] in 0..1."""
        *skips, x = features
        for up, stage, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = stage(up(x) + skip)
        return (self.ending(x) + image).clamp(0, 1)  # type: ignore[no-any-return]


def hyperparameters(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Read the constructor arguments from keys and shapes of a state dict."""
    taps, prior_width = state["kernel_extra.Conv_tail.var.2.weight"].shape[:2]
    return {
        **nafnet_hyperparameters(state),
        "kernel_size": math.isqrt(taps),
        "prior_width": prior_width,
    }


PAPER: dict[str, object] = {
    "width": 64,
    "encoder_blocks": [1, 1, 1, 28],
    "middle_blocks": 1,
    "decoder_blocks": [1, 1, 1, 1],
    "kernel_size": 19,
    "prior_width": 64,
}

TINY: dict[str, object] = {
    "width": 8,
    "encoder_blocks": [1, 1, 1, 2],
    "middle_blocks": 1,
    "decoder_blocks": [1, 1, 1, 1],
    "kernel_size": 7,
    "prior_width": 8,
}


SPEC = ModelSpec(
    name="ufpnet",
    title="UFPNet",
    source="Fang et al., Self-Supervised Non-Uniform Kernel Estimation with Flow-Based Motion "
    "Prior for Blind Image Deblurring, CVPR 2023",
    build=UFPNet,
    variants={"64": PAPER, "tiny": TINY},
    keys_present=(
        "intro.weight",
        "kernel_extra.Conv_tail.var.2.weight",
        "flow.net.0.mask",
        "kernel_down.3.weight",
        "decoders.0.0.gamma",
    ),
    keys_absent=(),
    hyperparameters=hyperparameters,
    images=ImageSpec(STRIDE, padding=PADDING),
    local=("train_size",),
    published={
        "64": (
            Published(
                parameters=80.3e6,
                gmacs=235.6,
                tolerance=0.003,
                note="counted from the official code; 0.5 G of it are the unused kernel_down.2",
            ),
        )
    },
    after_random=amplify_prior,
)
