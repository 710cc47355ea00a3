"""One stage of SAPHN: encoder and decoder at four scales (Suin et al. 2020, Fig. 2).

Downsampling is by 3x3 convolutions with stride 2 and upsampling by transposed 4x4 convolutions,
without activation, as in DMPHN (Zhang et al. 2019), which the paper extends. Each scale of the
encoder ends with a cross attention to the decoder of the previous stage, if there is one, and each
scale of the decoder begins with a cross attention to the encoder.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.models.blocks.saphn_attention import Attention
from deblur_export.models.blocks.saphn_content import ResBlock


class Down(nn.Conv2d):
    """3x3 convolution with stride 2 and padding 1 of an image of even size.

    The padding at the bottom and at the right is never read. Without it the size is H / 2, which
    torch.export simplifies at once; (H - 1) // 2 + 1 makes the export of a network with sampled
    points take minutes.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, outputs, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, outputs, H/2, W/2]."""
        return super().forward(F.pad(x, (1, 0, 1, 0)))


class Scales(nn.Module):
    """Base of encoder and decoder: builds residual blocks and cross attentions for each scale."""

    def make_blocks(self, widths: Sequence[int], count: int) -> nn.ModuleList:
        return nn.ModuleList(nn.Sequential(*(ResBlock(w) for _ in range(count))) for w in widths)

    def make_cross(self, widths: Sequence[int]) -> nn.ModuleList:
        return nn.ModuleList(Attention(w) for w in widths)


class Encoder(Scales):
    """The encoder of a stage, with `count` residual blocks per scale; other arguments as in
    `Stage`."""

    def __init__(self, widths: Sequence[int], count: int, lower: bool) -> None:
        super().__init__()
        self.intro = nn.Conv2d(3, widths[0], 3, padding=1)
        self.downs = nn.ModuleList(
            Down(fine, coarse) for fine, coarse in itertools.pairwise(widths)
        )
        self.blocks = self.make_blocks(widths, count)
        self.cross = self.make_cross(widths) if lower else None

    def forward(self, image: Tensor, lower: Sequence[Tensor]) -> list[Tensor]:
        """Image [N, 3, H, W] and the decoder features of the previous stage -> features of each
        scale, from full size down."""
        features: list[Tensor] = []
        x = self.intro(image)
        for scale, stack in enumerate(self.blocks):
            x = stack(self.downs[scale - 1](x) if scale else x)
            if self.cross is not None:
                x = x + self.cross[scale](x, lower[scale])
            features.append(x)
        return features


class Decoder(Scales):
    """The decoder of a stage; arguments as in `Encoder`."""

    def __init__(self, widths: Sequence[int], count: int) -> None:
        super().__init__()
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 4, stride=2, padding=1)
            for fine, coarse in itertools.pairwise(widths)
        )
        self.cross = self.make_cross(widths)
        self.blocks = self.make_blocks(widths, count)

    def forward(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        """Encoder features -> decoder features, both from full size down."""
        x = encoded[-1]
        features = []
        for scale in reversed(range(len(encoded))):
            if scale < len(self.ups):
                x = self.ups[scale](x)
            x = x + self.cross[scale](x, encoded[scale])
            x = self.blocks[scale](x)
            features.append(x)
        return features[::-1]


class Stage(nn.Module):
    """A stage: from the image plus the residual of the previous stage to a new residual.

    Args:
        widths: channels at full size, half size, ...
        encoder_blocks, decoder_blocks: number of residual blocks per scale.
        lower: whether there is a previous stage, which is lower in the hierarchy.
    """

    encoder_class: type[Encoder] = Encoder
    decoder_class: type[Decoder] = Decoder

    def __init__(
        self, widths: Sequence[int], encoder_blocks: int, decoder_blocks: int, lower: bool
    ) -> None:
        super().__init__()
        self.encoder = self.encoder_class(widths, encoder_blocks, lower)
        self.decoder = self.decoder_class(widths, decoder_blocks)
        self.ending = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, image: Tensor, lower: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Image [N, 3, H, W] and the decoder features of the previous stage -> residual
        [N, 3, H, W] and decoder features [N, widths[s], H/2^s, W/2^s]."""
        features = self.decoder(self.encoder(image, lower))
        return self.ending(features[0]), features
