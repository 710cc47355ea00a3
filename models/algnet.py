"""ALGNet: global features by Mamba and local ones by channel attention in the U-Net of NAFNet (Gao
and Dang, "Learning Enriched Features via Selective State Spaces Model for Efficient Image
Deblurring", 2024, arXiv:2403.20106).

Architecture and parameter names follow the official code (Tombs98/ALGNet, Apache-2.0), so that its
checkpoints load unchanged, including unused parameters. It is not stated which of the two
configurations the released weights have: the paper's 17 GMACs are those of 36 blocks ("32"), and
the default of the code is 40 blocks ("32-deep"). The paper's figure fits if everything inside Mamba
is left out, which would double it.

The encoder has three reduced images as additional inputs. In training, the decoder has three
additional outputs at these sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deblur_export.models.blocks.algnet_block import ALGBlock, FeatureMerge, ShallowFeatures
from deblur_export.models.blocks.mamba import STEP_RANGE, Mamba
from deblur_export.models.blocks.naf import tlc_window
from deblur_export.models.blocks.padding import pad_to_multiple
from deblur_export.models.image_spec import ImageSpec
from deblur_export.models.nafnet import STRIDE, TINY, hyperparameters, paper_variant
from deblur_export.models.spec import ModelSpec, Published

SMALLER = (2, 4, 8)  # the reduced sizes, as divisors


class TrainingOutput(NamedTuple):
    """The restored image at an eighth, a quarter, half and full size, for the loss.

    Each is [N, 3, ceil(H/s), ceil(W/s)] and corresponds to image[..., ::s, ::s].
    """

    eighth: Tensor
    quarter: Tensor
    half: Tensor
    restored: Tensor


class ALGNet(nn.Module):
    """A U-Net of four encoder stages, a middle stage and four decoder stages. Skip connections are
    concatenated.

    Args:
        width: channels at full resolution; they double at each stage.
        encoder_blocks, middle_blocks, decoder_blocks: number of blocks in each stage.
        train_size: side of the training crops in pixels, for local pooling in the local layers
            (TLC); None pools globally.
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

        def stage(level: int, count: int) -> nn.Sequential:
            window = tlc_window(train_size, level)
            return nn.Sequential(*(ALGBlock(width * 2**level, window) for _ in range(count)))

        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders = nn.ModuleList(stage(i, count) for i, count in enumerate(encoder_blocks))
        channels = [width * 2**level for level in range(5)]
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in channels[:4])
        for s, c in zip(SMALLER, channels[1:4], strict=True):
            self.add_module(f"SFE{s}", ShallowFeatures(c))
            self.add_module(f"FAM{s}", FeatureMerge(c))
        self.middle_blks = stage(4, middle_blocks)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2))
            for c in channels[:0:-1]
        )
        self.Convs = nn.ModuleList(nn.Conv2d(2 * c, c, 1) for c in channels[3::-1])
        self.decoders = nn.ModuleList(stage(3 - i, count) for i, count in enumerate(decoder_blocks))
        self.ConvsOut = nn.ModuleList(nn.Conv2d(c, 3, 3, padding=1) for c in channels[3:0:-1])
        self.ending = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor | TrainingOutput:
        """Restore a blurred image.

        Args:
            image: [N, 3, H, W], RGB in 0..1, of any size.

        Returns:
            In eval mode [N, 3, H, W], not clamped to 0..1; in training mode a `TrainingOutput`.
        """
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, STRIDE)
        if not self.training:
            return self.forward_padded(padded)[..., :height, :width]
        outputs = zip((8, 4, 2, 1), self.forward_training(padded), strict=True)
        return TrainingOutput(*(y[..., : -(-height // s), : -(-width // s)] for s, y in outputs))

    def forward_padded(self, image: Tensor) -> Tensor:
        """Like `forward` in eval mode, for H and W that are multiples of 16."""
        return self.ending(self.decode(image, self.reduced(image))[-1]) + image  # type: ignore[no-any-return]

    def forward_training(self, image: Tensor) -> list[Tensor]:
        """The outputs at an eighth, a quarter, half and full size."""
        smaller = self.reduced(image)
        *features, last = self.decode(image, smaller)
        outputs = zip(self.ConvsOut, features, reversed(smaller), strict=True)
        return [*(conv(x) + small for conv, x, small in outputs), self.ending(last) + image]

    def reduced(self, image: Tensor) -> list[Tensor]:
        """The image reduced to every second, fourth and eighth pixel."""
        smaller = []
        for _ in SMALLER:
            image = image[..., ::2, ::2]
            smaller.append(image)
        return smaller

    def decode(self, image: Tensor, smaller: Sequence[Tensor]) -> list[Tensor]:
        """The output of each decoder stage, the smallest first."""
        x, skips = self.intro(image), []
        for level, (stage, down) in enumerate(zip(self.encoders, self.downs, strict=True)):
            skips.append(stage(x))
            x = down(skips[-1])
            if level < len(SMALLER):
                extract = self.get_submodule(f"SFE{SMALLER[level]}")
                merge = self.get_submodule(f"FAM{SMALLER[level]}")
                x = merge(x, extract(smaller[level]))
        x, outputs = self.middle_blks(x), []
        stages = zip(self.ups, self.Convs, self.decoders, reversed(skips), strict=True)
        for up, merge, stage, skip in stages:
            x = stage(merge(torch.cat([up(x), skip], dim=1)))
            outputs.append(x)
        return outputs


def initialise_scans(net: nn.Module) -> None:
    """Set the decay rates and step sizes of a network with random weights to values near their
    usual initialisation, so that the scans have memory.

    They are computed in float64 from the random values, so that all machines get the same.
    """
    low, high = (math.log(bound) for bound in STEP_RANGE)
    for mamba in net.modules():
        if not isinstance(mamba, Mamba):
            continue
        assert mamba.A_log is not None
        rates = torch.arange(1, mamba.states + 1, dtype=torch.float64).log()
        mamba.A_log.data.copy_(rates + mamba.A_log.data.double() - 0.35)  # was 0.2..0.5
        fraction = 0.5 + 0.2 * (mamba.dt_proj.bias.data.double() / 0.1).clamp(-2.5, 2.5)
        steps = (low + (high - low) * fraction).exp()
        mamba.dt_proj.bias.data.copy_(steps + torch.log(-torch.expm1(-steps)))


def deep_variant(width: int) -> dict[str, object]:
    """The default configuration of the official code at the given width."""
    return {
        "width": width,
        "encoder_blocks": [2, 2, 4, 8],
        "middle_blocks": 8,
        "decoder_blocks": [8, 4, 2, 2],
    }


SPEC = ModelSpec(
    name="algnet",
    title="ALGNet",
    source="Gao and Dang, Learning Enriched Features via Selective State Spaces Model for "
    "Efficient Image Deblurring, 2024 (arXiv:2403.20106)",
    build=ALGNet,
    variants={
        "32": paper_variant(32),
        "32-deep": deep_variant(32),
        "64": paper_variant(64),
        "64-deep": deep_variant(64),
        "tiny": {**TINY, "encoder_blocks": [1, 1, 1, 1]},
    },
    keys_present=("intro.weight", "SFE2.main.4.weight", "encoders.0.0.g_layer.mamba.A_log"),
    keys_absent=(),
    hyperparameters=hyperparameters,
    images=ImageSpec(STRIDE),
    local=("train_size",),
    published={
        "32": (
            Published(
                gmacs=17,
                without=("g_layer.mamba",),
                tolerance=0.03,
                note="without the layers inside Mamba, which would more than double the count",
            ),
        ),
    },
    after_random=initialise_scans,
)
