"""NAFNet (Chen et al., ECCV 2022), the U-Net that most of the networks here are based on.

Architecture and parameter names follow the official code (megvii-research/NAFNet, MIT), so that
its GoPro checkpoints load unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from deblur_export.models.blocks.naf import NAFBlock, tlc_window
from deblur_export.models.blocks.padding import pad_to_multiple
from deblur_export.models.image_spec import CHANNELS, ImageSpec
from deblur_export.models.spec import ModelSpec, Published, count_blocks

STRIDE = 16  # of the paper's four levels


def naf_stage(channels: int, count: int, window: int | None) -> nn.Sequential:
    """A sequence of `count` NAF blocks."""
    return nn.Sequential(*(NAFBlock(channels, window) for _ in range(count)))


class NAFNet(nn.Module):
    """A U-Net of encoder stages, a middle stage and as many decoder stages, four in the paper. Skip
    connections are added.

    Args:
        width: channels at full resolution; they double at each stage.
        encoder_blocks, middle_blocks, decoder_blocks: number of blocks in each stage.
        train_size: side of the training crops in pixels; the network pools over a window of 1.5
            times this size around each pixel (TLC, "NAFNetLocal" in the official code). For
            inference only. None pools over the whole image.
        channels: of the image.
    """

    def __init__(
        self,
        width: int = 32,
        encoder_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        decoder_blocks: Sequence[int] = (1, 1, 1, 1),
        train_size: int | None = None,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.stride = 2 ** len(encoder_blocks)
        windows = [tlc_window(train_size, level) for level in range(len(encoder_blocks) + 1)]
        self.intro = nn.Conv2d(channels, width, 3, padding=1)
        self.encoders = nn.ModuleList()
        self.downs = nn.ModuleList()
        image_channels, channels = channels, width
        for level, count in enumerate(encoder_blocks):
            self.encoders.append(self.encoder_stage(level, channels, count, windows[level]))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
            channels *= 2
        self.middle_blks = naf_stage(channels, middle_blocks, windows.pop())
        self.ups = nn.ModuleList()
        self.decoders = nn.ModuleList()
        for count in decoder_blocks:
            self.ups.append(
                nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2))
            )
            channels //= 2
            self.decoders.append(naf_stage(channels, count, windows.pop()))
        self.ending = nn.Conv2d(width, image_channels, 3, padding=1)

    def encoder_stage(self, level: int, channels: int, count: int, window: int | None) -> nn.Module:
        """Build the blocks of one encoder stage."""
        return naf_stage(channels, count, window)

    def forward(self, image: Tensor) -> Tensor:
        """Restore a blurred image.

        Args:
            image: [N, C, H, W], RGB in 0..1 if C is 3, of any size.

        Returns:
            [N, C, H, W], not clamped to 0..1.
        """
        height, width = image.shape[-2:]
        return self.forward_padded(pad_to_multiple(image, self.stride))[..., :height, :width]

    def forward_padded(self, image: Tensor) -> Tensor:
        """Like `forward`, for H and W that are multiples of 2 to the number of encoder stages (16),
        without padding and cropping."""
        x = self.intro(image)
        skips = []
        for stage, down in zip(self.encoders, self.downs, strict=True):
            x = stage(x)
            skips.append(x)
            x = down(x)
        return self.decode(self.middle_blks(x), skips, image)

    def decode(self, x: Tensor, skips: Sequence[Tensor], image: Tensor) -> Tensor:
        """Run the decoder: from middle features and skip connections to the restored image."""
        for up, stage, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = stage(up(x) + skip)
        return self.ending(x) + image  # type: ignore[no-any-return]


def hyperparameters(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Read the constructor arguments from keys and shapes of a state dict with NAFNet's layout."""
    width, channels = state["intro.weight"].shape[:2]
    if channels not in CHANNELS:
        raise ValueError(f"images of {channels} channels")
    levels = range(count_levels(state))
    return {
        "width": width,
        "encoder_blocks": [count_blocks(state, f"encoders.{i}.") for i in levels],
        "middle_blocks": count_blocks(state, "middle_blks."),
        "decoder_blocks": [count_blocks(state, f"decoders.{i}.") for i in levels],
    } | ({} if channels == 3 else {"channels": channels})


def count_levels(keys: Iterable[str]) -> int:
    """Number of encoder stages by the highest number in the keys of a state dict: where some are
    missing, the others still tell."""
    found = (re.match(r"(?:encoders|downs|ups|decoders)\.(\d{1,4})\.", key) for key in keys)
    return 1 + max(int(match[1]) for match in found if match)


def images(arguments: Mapping[str, Any]) -> ImageSpec:
    """The images of a network with these constructor arguments."""
    levels = len(arguments["encoder_blocks"])
    return ImageSpec(2**levels, channels=arguments.get("channels", 3))


TINY: dict[str, object] = {
    "width": 8,
    "encoder_blocks": [1, 1, 1, 6],
    "middle_blocks": 1,
    "decoder_blocks": [1, 1, 1, 1],
}


def paper_variant(width: int) -> dict[str, object]:
    """The paper's configuration for deblurring at the given width."""
    return {
        "width": width,
        "encoder_blocks": [1, 1, 1, 28],
        "middle_blocks": 1,
        "decoder_blocks": [1, 1, 1, 1],
    }


SPEC = ModelSpec(
    name="nafnet",
    title="NAFNet",
    source="Chen et al., Simple Baselines for Image Restoration, ECCV 2022 (arXiv:2204.04676)",
    build=NAFNet,
    variants={"32": paper_variant(32), "64": paper_variant(64), "tiny": TINY},
    keys_present=("intro.weight", "encoders.0.0.sca.1.weight", "middle_blks.0.conv2.weight"),
    keys_absent=("mask_predictor.", "kernel_extra."),
    hyperparameters=hyperparameters,
    images=ImageSpec(STRIDE),
    images_of=images,
    local=("train_size",),
    published={
        "32": (
            Published(parameters=17.1e6, gmacs=16.1, with_bias=True, tolerance=0.005),
            Published(
                gmacs=764,
                size=(1436, 2152),
                with_bias=True,
                tolerance=0.001,
                note="as quoted by the M2AENet paper",
            ),
        ),
        "64": (
            Published(parameters=67.9e6, tolerance=0.005),
            Published(
                gmacs=65,
                with_bias=True,
                matched=False,
                note="no counting rule of 256x256 pixels was found that gives 65; the blocks of "
                "the denoising configuration, [2, 2, 4, 8], 12, [2, 2, 2, 2], have 63.6",
            ),
        ),
    },
)
