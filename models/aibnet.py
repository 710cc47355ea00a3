"""AIBNet: a frozen encoder and one to four decoders in sequence (Gao and Dang 2025,
arXiv:2502.20880, "Adaptive Identification of Blurred Regions for Accurate Image Deblurring").

A reconstruction from the paper: the official code was not available for comparison, so parameter
names are chosen here (the paper's symbols where it has some), and the keys of the authors'
checkpoints have to be renamed. The encoder is that of UFPNet with its official names, below
`encoder.`. Sub-decoder t refines the features of sub-decoder t-1; the first one starts from the
features of the encoder.

Interpretation. The paper does not specify the inner structure of its blocks. The one used here (see
`blocks/aibnet_*.py`) has the published 41.1 M parameters and 114 GMACs of one sub-decoder, without
the encoder in both figures. Every sub-decoder starts from the same bottom features e5, because a
block at 1/16 of the size would cost 100 M parameters. The encoder pools locally (TLC), as published
by its authors, and its noise input is zero, whereas UFPNet draws it at every call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deblur_export.models.blocks.aibnet_attention import ChannelAttention
from deblur_export.models.blocks.aibnet_decoupler import GROUPS
from deblur_export.models.blocks.aibnet_hfs import HFSBlock
from deblur_export.models.blocks.aibnet_sfem import SFDHBlock
from deblur_export.models.blocks.naf import tlc_window
from deblur_export.models.blocks.padding import pad_to_multiple
from deblur_export.models.blocks.ufp_encoder import UFPEncoder, amplify_prior
from deblur_export.models.image_spec import ImageSpec
from deblur_export.models.spec import TRAIN_SIZE, ModelSpec, Published, count_blocks

STRIDE = 16
ENCODER = ("encoder",)  # what the paper's figures leave out
SCALES = 4


class TrainingOutput(NamedTuple):
    """The images [N, 3, H, W] of the sub-decoders that ran: the last one, and all of them in
    order."""

    restored: Tensor
    images: tuple[Tensor, ...]


class SubDecoder(nn.Module):
    """Decoder from the bottom features to full size, with SFDHBlocks and an HFSBlock at each scale.

    Args:
        width: channels at full resolution.
        blocks: number of SFDHBlocks at each scale.
        filter_size: kernel size of the decoupler in HFSBlock.
        train_size, normalize_qk: as in `AIBNet`.
    """

    def __init__(
        self, width: int, blocks: int, filter_size: int, train_size: int | None, normalize_qk: bool
    ) -> None:
        super().__init__()
        self.ups = nn.ModuleList()
        self.scales = nn.ModuleList()
        for level in reversed(range(SCALES)):
            channels, window = width * 2**level, tlc_window(train_size, level)
            self.ups.append(
                nn.Sequential(
                    nn.Conv2d(2 * channels, 4 * channels, 1, bias=False), nn.PixelShuffle(2)
                )
            )
            self.scales.append(
                nn.Sequential(
                    *(SFDHBlock(channels, window, normalize_qk) for _ in range(blocks)),
                    HFSBlock(channels, filter_size, normalize_qk),
                )
            )
        self.ending = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, bottom: Tensor, skips: Sequence[Tensor]) -> list[Tensor]:
        """bottom [N, 16w, H/16, W/16] and one skip connection per scale, coarse to fine ->
        features of the same shapes as the skip connections."""
        x, features = bottom, []
        for up, scale, skip in zip(self.ups, self.scales, skips, strict=True):
            x = scale(up(x) + skip)
            features.append(x)
        return features


class AIBNet(nn.Module):
    """The encoder of UFPNet and `sub_decoders` decoders in sequence.

    The encoder is never trained: its parameters require no gradient, and it stays in eval mode when
    the network is in training mode.

    Args:
        width, encoder_blocks, middle_blocks, kernel_size, prior_width: of the encoder; see
            `UFPEncoder`.
        sub_decoders: 1, 2 and 4 in the paper's S, B and L.
        blocks: number of SFDHBlocks at each scale of a sub-decoder.
        filter_size: kernel size of the decoupler's low-pass filter.
        train_size: side of the training crops in pixels, for local pooling (TLC) in the
            sub-decoders; None pools globally.
        encoder_train_size: the same for the encoder. `--local` sets both to the crops of the
            checkpoint, unless the encoder was frozen in that training.
        normalize_qk: divide queries and keys by their norms over the pixels; not in the paper.
    """

    def __init__(
        self,
        width: int = 64,
        encoder_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        kernel_size: int = 19,
        prior_width: int = 64,
        sub_decoders: int = 1,
        blocks: int = 8,
        filter_size: int = 5,
        train_size: int | None = None,
        encoder_train_size: int | None = TRAIN_SIZE,
        normalize_qk: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = UFPEncoder(
            width, encoder_blocks, middle_blocks, kernel_size, prior_width, encoder_train_size
        )
        self.encoder.requires_grad_(False)
        self.sub_decoders = nn.ModuleList(
            SubDecoder(width, blocks, filter_size, train_size, normalize_qk)
            for _ in range(sub_decoders)
        )
        self.trained: int | None = None
        self.train(self.training)

    def train_only(self, index: int | None) -> None:
        """Select what is trained: only sub-decoder `index` (from 0), or all of them (None).

        The paper trains them one by one. Those before `index` are frozen and in eval mode, and
        their images are computed without gradient; those after it do not run in training mode.

        Raises:
            ValueError: there is no such sub-decoder.
        """
        if index is not None and not 0 <= index < len(self.sub_decoders):
            raise ValueError(f"there is no sub-decoder {index}; 0 to {len(self.sub_decoders) - 1}")
        self.trained = index
        for number, decoder in enumerate(self.sub_decoders):
            decoder.requires_grad_(index in (None, number))
        self.train(self.training)

    def train(self, mode: bool = True) -> AIBNet:
        """As `nn.Module.train`, but frozen parts stay in eval mode."""
        super().train(mode)
        self.encoder.eval()
        for decoder in self.sub_decoders[: self.trained or 0]:
            decoder.eval()
        return self

    def forward(self, image: Tensor) -> Tensor | TrainingOutput:
        """Restore a blurred image.

        Args:
            image: [N, 3, H, W], RGB in 0..1, of any size; N is at least 2 in training mode.

        Returns:
            In eval mode [N, 3, H, W], not clamped to 0..1; in training mode a `TrainingOutput`.
        """
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, STRIDE, "reflect")
        if not self.training:
            return self.forward_padded(padded)[..., :height, :width]
        images = tuple(x[..., :height, :width] for x in self.forward_training(padded))
        return TrainingOutput(images[-1], images)

    def forward_padded(self, image: Tensor) -> Tensor:
        """Like `forward` in eval mode, for H and W that are multiples of 16.

        Only the last sub-decoder computes an image.
        """
        bottom, features = self.encode(image)
        for decoder in self.sub_decoders:
            features = decoder(bottom, features)
        return decoder.get_submodule("ending")(features[-1]) + image  # type: ignore[no-any-return]

    def forward_training(self, image: Tensor) -> list[Tensor]:
        """The images of all sub-decoders up to the one that is trained."""
        bottom, features = self.encode(image)
        images = []
        last = len(self.sub_decoders) - 1 if self.trained is None else self.trained
        for decoder in self.sub_decoders[: last + 1]:
            with torch.set_grad_enabled(torch.is_grad_enabled() and decoder.training):
                features = decoder(bottom, features)
                images.append(decoder.get_submodule("ending")(features[-1]) + image)
        return images

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The bottom features e5, and the features e4 to e1, without gradient and without noise."""
        with torch.no_grad():
            *skips, bottom = self.encoder(image)
        return bottom, skips[::-1]


def hyperparameters(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Read the constructor arguments from keys and shapes of a state dict."""
    first = "sub_decoders.0.scales.0."
    blocks = count_blocks(state, first) - 1
    return {
        "width": state["encoder.intro.weight"].shape[0],
        "encoder_blocks": [count_blocks(state, f"encoder.encoders.{i}.") for i in range(SCALES)],
        "middle_blocks": count_blocks(state, "encoder.middle_blks."),
        "kernel_size": math.isqrt(state["encoder.flow.base_dist_mean"].shape[0]),
        "prior_width": state["encoder.kernel_extra.Encoding_Block1.Conv_head.weight"].shape[0],
        "sub_decoders": count_blocks(state, "sub_decoders."),
        "blocks": blocks,
        "filter_size": math.isqrt(
            state[f"{first}{blocks}.decoupler.conv.weight"].shape[0] // GROUPS
        ),
    }


def paper_variant(sub_decoders: int) -> dict[str, object]:
    """The paper's configuration with that many sub-decoders."""
    return {
        "width": 64,
        "encoder_blocks": [1, 1, 1, 28],
        "middle_blocks": 1,
        "kernel_size": 19,
        "prior_width": 64,
        "sub_decoders": sub_decoders,
        "blocks": 8,
        "filter_size": 5,
    }


TINY: dict[str, object] = {
    "width": 8,
    "encoder_blocks": [1, 1, 1, 2],
    "middle_blocks": 1,
    "kernel_size": 7,
    "prior_width": 8,
    "sub_decoders": 2,
    "blocks": 1,
    "filter_size": 5,
}


def rescale_random_weights(net: nn.Module) -> None:
    """Rescale random weights so that features stay bounded and attentions are neither uniform nor
    saturated.

    Logits are sums over all pixels, so b is multiplied by the number of pixels of its scale (of a
    128 x 128 image). HFSBlock has no norm: its layer is scaled down as much as the features grow.
    The factors a stay near 0.8.
    """
    assert isinstance(net, AIBNet)
    amplify_prior(net)
    with torch.no_grad():
        for decoder in net.sub_decoders:
            assert isinstance(decoder, SubDecoder)
            decoder.ending.weight.mul_(0.03)
            for up in decoder.ups:
                up.get_parameter("0.weight").mul_(0.5)
            for level, scale in zip(reversed(range(SCALES)), decoder.scales, strict=True):
                for module in scale.modules():
                    if isinstance(module, ChannelAttention):
                        _rescale_attention(module, (128 >> level) ** 2)


def _rescale_attention(attention: ChannelAttention, pixels: int) -> None:
    attention.get_parameter("b").mul_(pixels)
    if isinstance(attention, HFSBlock):
        attention.qkv.weight.mul_(0.25)
    else:
        for name in ("a_q1", "a_k1", "a_q2", "a_k2"):
            attention.get_parameter(name).sub_(0.35)


def published(gmacs: float, *others: Published) -> tuple[Published, ...]:
    """Figures of the paper's tables: convolutions without bias, without attention and encoder."""
    return (Published(gmacs=gmacs, without=ENCODER, convolutions=True, tolerance=0.005), *others)


SPEC = ModelSpec(
    name="aibnet",
    title="AIBNet",
    source="Gao and Dang, Adaptive Identification of Blurred Regions for Accurate Image "
    "Deblurring, 2025 (arXiv:2502.20880); reconstruction from the paper",
    build=AIBNet,
    variants={"s": paper_variant(1), "b": paper_variant(2), "l": paper_variant(4), "tiny": TINY},
    keys_present=(
        "encoder.intro.weight",
        "encoder.flow.base_dist_mean",
        "sub_decoders.0.scales.0.0.sfem.qkv.weight",
    ),
    keys_absent=(),
    hyperparameters=hyperparameters,
    images=ImageSpec(STRIDE, padding="reflect"),
    local=("train_size", "encoder_train_size"),
    published={
        "s": published(
            114,
            Published(parameters=41.1e6, without=ENCODER, tolerance=0.005),
            Published(
                parameters=40.67e6,
                without=ENCODER,
                tolerance=0.005,
                matched=False,
                note="a sub-decoder in Table 6, which counts 122.01 M for three; no reading has "
                "both this and 41.1 M",
            ),
        ),
        "b": published(228),
        "l": published(456),
    },
    after_random=rescale_random_weights,
)
