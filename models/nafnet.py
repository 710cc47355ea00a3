"""NAFNet (Chen et al., ECCV 2022), the U-Net that most of the networks here are based on.

Architecture and parameter names follow the official code (megvii-research/NAFNet, MIT), so that
its GoPro checkpoints load unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from deblur_export.models.blocks.naf import NAFBlock, tlc_window
from deblur_export.models.blocks.padding import pad_to_multiple
from deblur_export.models.image_spec import ImageSpec
from deblur_export.models.spec import ModelSpec, Published, count_blocks

STRIDE = 16


def naf_stage(channels: int, count: int, window: int | None) -> nn.Sequential:
    """A sequence of `count` NAF blocks."""
    return nn.Sequential(*(NAFBlock(channels, window) for _ in range(count)))


class NAFNet(nn.Module):
    """A U-Net of four encoder stages, a middle stage and four decoder stages. Skip connections are
    added.

    Args:
        width: channels at full resolution; they double at each stage.
        encoder_blocks, middle_blocks, decoder_blocks: number of blocks in each stage.
        train_size: side of the training crops in pixels; the network pools over a window of 1.5
            times this size around each pixel (TLC, "NAFNetLocal" in the official code). For
            inference only. None pools over the whole image.
    """

    def __init__(
        self,
        width: int = 32,
        encoder_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        decoder_blocks: Sequence[int] = (1, 1, 1, 1),
        train_size: int | None = None,
    ) -> None:
        super().__init__()
        windows = [tlc_window(train_size, level) for level in range(len(encoder_blocks) + 1)]
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders = nn.ModuleList()
        self.downs = nn.ModuleList()
        channels = width
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
        self.ending = nn.Conv2d(width, 3, 3, padding=1)

    def encoder_stage(self, level: int, channels: int, count: int, window: int | None) -> nn.Module:
        """Build the blocks of one encoder stage."""
        return naf_stage(channels, count, window)

    def forward(self, image: Tensor) -> Tensor:
        """Restore a blurred image.

        Args:
            image: [N, 3, H, W], RGB in 0..1, of any size.

        Returns:
            [N, 3, H, W], not clamped to 0..1.
        """
        height, width = image.shape[-2:]
        return self.forward_padded(pad_to_multiple(image, STRIDE))[..., :height, :width]

    def forward_padded(self, image: Tensor) -> Tensor:
        """Like `forward`, for H and W that are multiples of 16, without padding and cropping."""
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
    return {
        "width": state["intro.weight"].shape[0],
        "encoder_blocks": [count_blocks(state, f"encoders.{i}.") for i in range(4)],
        "middle_blocks": count_blocks(state, "middle_blks."),
        "decoder_blocks": [count_blocks(state, f"decoders.{i}.") for i in range(4)],
    }


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
    keys_present=("intro.weight", "encoders.0.0.sca.1.weight", "middle_blks.0.gamma"),
    keys_absent=("mask_predictor.", "kernel_extra."),
    hyperparameters=hyperparameters,
    images=ImageSpec(STRIDE),
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
