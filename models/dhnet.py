"""DHNet and DHNet-B: Volterra filters and routed experts (Gao and Dang 2025, arXiv:2502.19677).

"Towards Differential Handling of Various Blur Regions for Accurate Image Deblurring". A
reconstruction: no code is public, and the available text of the paper lacks its equations.
Parameter names are therefore chosen here; official weights, should they appear, will need their
keys mapped and may change the design. The following is chosen here, each with its reason:

- The U-Net of NAFNet with [1, 1, 1, 28], 1, [1, 1, 1, 1] blocks, the configuration of the NAFNet
  baselines in the paper's tables. A stage consists of its blocks and one mixture of experts (DDRE).
- A block has NAFNet's second half, its gated 1x1 convolutions, and there are R = 3 routers, each
  with its own experts. The published multiply-adds determine most of this: experts shared by the
  routers, dense 3x3 Volterra kernels, or a count that includes the prior network all miss by far.
  Blocks without a second half and R = 5 would fit about as well.
- In the text (Sec. 3.3) the branch of each order has two 3x3 convolutions and a residual from the
  order before. Here the two of a product are its factors, and each product is added to the sum of
  the orders before; the linear branch has one. A second one there, depth-wise, would make 31.6 and
  112.4 GMACs (bench/readings.py): nearer to the published 32, further from 111, and further from
  the figures for Q = 1, 2 and 4.
- A router has one weight per expert and image. Only the routers read the prior: in DHNet-B, the
  features of a frozen UFPNet (`models/ufpnet.py`) at the same scale are concatenated with those of
  the stage. The encoder features e1..e4 are used again in the decoder stages, and e5 in the middle.
- Images are padded with zeros, as in NAFNet. The prior receives the same padded image (UFPNet by
  itself pads by reflection) and adds no noise to its kernel codes.

The multiply-adds at 256x256 are 31.4 G (published: 32) and 112.1 G (published: 111, without the
prior). The published dependence on the rank, 106, 107, 109, 111 and 119 G for Q = 0, 1, 2, 4 and 8,
fits no filter of rank Q, whose cost is linear from Q = 1 on: with rounding, it rises by at most
1.5 G per rank from 2 to 4 and by at least 1.75 G per rank from 4 to 8. Here it is 107.2, 108.8,
109.9, 112.1 and 116.4 G.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from deblur_export.models import ufpnet
from deblur_export.models.blocks.ddre import DDRE
from deblur_export.models.blocks.naf import GlobalAveragePool, tlc_window
from deblur_export.models.blocks.padding import pad_to_multiple
from deblur_export.models.blocks.ufp_encoder import UFPEncoder, amplify_prior
from deblur_export.models.blocks.volterra import VBlock, VolterraFilter
from deblur_export.models.image_spec import ImageSpec
from deblur_export.models.nafnet import STRIDE, paper_variant
from deblur_export.models.spec import ModelSpec, Published, count_blocks

RANK = 4
ROUTERS = 3


class DHStage(nn.Module):
    """`count` Volterra blocks, then the mixture of experts."""

    def __init__(
        self,
        channels: int,
        count: int,
        window: int | None,
        rank: int,
        routers: int,
        prior_channels: int,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(VBlock(channels, window, rank) for _ in range(count)))
        self.ddre = DDRE(channels, prior_channels, routers)

    def forward(self, x: Tensor, prior: Tensor | None) -> Tensor:
        """x [N, C, H, W] and the means of the prior [N, P, 1, 1] -> [N, C, H, W]."""
        return self.ddre(self.blocks(x), prior)  # type: ignore[no-any-return]


class DHNet(nn.Module):
    """A U-Net of four encoder stages, a middle stage and four decoder stages. Skip connections are
    added.

    Args:
        width: channels at full resolution; they double at each stage.
        encoder_blocks, middle_blocks, decoder_blocks: number of blocks in each stage.
        rank: Q, the number of products in a Volterra filter; 0 is NAFNet's gate.
        routers: R, the number of routers in each mixture of experts.
        prior: arguments of the `UFPEncoder` whose features the routers read (DHNet-B), or None
            (DHNet).
        train_size: side of the training crops in pixels, for local pooling (TLC) in the channel
            attention, including that of the prior. The routers always pool over the whole image.
            None pools globally.
    """

    def __init__(
        self,
        width: int = 32,
        encoder_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        decoder_blocks: Sequence[int] = (1, 1, 1, 1),
        rank: int = RANK,
        routers: int = ROUTERS,
        prior: Mapping[str, Any] | None = None,
        train_size: int | None = None,
    ) -> None:
        super().__init__()
        self.prior = None if prior is None else UFPEncoder(**prior, train_size=train_size)
        prior_width = 0 if self.prior is None else self.prior.intro.out_channels

        def stage(level: int, count: int) -> DHStage:
            window, scale = tlc_window(train_size, level), 2**level
            return DHStage(width * scale, count, window, rank, routers, prior_width * scale)

        depth = len(encoder_blocks)
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders = nn.ModuleList(stage(*level) for level in enumerate(encoder_blocks))
        self.middle = stage(depth, middle_blocks)
        self.decoders = nn.ModuleList(
            stage(depth - 1 - number, count) for number, count in enumerate(decoder_blocks)
        )
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        for level in range(depth):
            fine, coarse = width * 2**level, width * 2 ** (level + 1)
            self.downs.append(nn.Conv2d(fine, coarse, 2, stride=2))
            up = nn.Conv2d(coarse, 2 * coarse, 1, bias=False)
            self.ups.insert(0, nn.Sequential(up, nn.PixelShuffle(2)))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        self.pool = GlobalAveragePool()
        self.freeze_prior()

    def freeze_prior(self) -> None:
        """Keep the prior, which is trained in advance, in eval mode and without gradient."""
        if self.prior is not None:
            self.prior.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> DHNet:
        super().train(mode)
        self.freeze_prior()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Restore a blurred image, in training mode as in eval mode.

        Args:
            image: [N, 3, H, W], RGB in 0..1, of any size.

        Returns:
            [N, 3, H, W], not clamped to 0..1.
        """
        height, width = image.shape[-2:]
        return self.forward_padded(pad_to_multiple(image, STRIDE))[..., :height, :width]

    def forward_padded(self, image: Tensor) -> Tensor:
        """Like `forward`, for H and W that are multiples of 16, without padding and cropping."""
        *priors, prior = self.prior_means(image)
        x, skips = self.intro(image), []
        for encoder, down, mean in zip(self.encoders, self.downs, priors, strict=True):
            x = encoder(x, mean)
            skips.append(x)
            x = down(x)
        x = self.middle(x, prior)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(up(x) + skips.pop(), priors.pop())
        return self.ending(x) + image  # type: ignore[no-any-return]

    def prior_means(self, image: Tensor) -> list[Tensor | None]:
        """Means of the prior's features over the image, [N, P, 1, 1], of encoder stages and middle.

        The routers need only the means. Without a prior, all are None.
        """
        if self.prior is None:
            return [None] * (len(self.encoders) + 1)
        with torch.no_grad():
            return [self.pool(features) for features in self.prior(image)]


def hyperparameters(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the constructor arguments from keys and shapes of a state dict."""
    counts = {
        "rank": (count_blocks(state, "encoders.0.blocks.0.volterra.wa."), RANK),
        "routers": (count_blocks(state, "encoders.0.ddre.routers."), ROUTERS),
    }
    found: dict[str, Any] = {
        "width": state["intro.weight"].shape[0],
        "encoder_blocks": [count_blocks(state, f"encoders.{i}.blocks.") for i in range(4)],
        "middle_blocks": count_blocks(state, "middle.blocks."),
        "decoder_blocks": [count_blocks(state, f"decoders.{i}.blocks.") for i in range(4)],
        **{name: value for name, (value, default) in counts.items() if value != default},
    }
    cut = len("prior.")
    prior = {key[cut:]: value for key, value in state.items() if key.startswith("prior.")}
    if prior:
        found["prior"] = ufpnet.hyperparameters(prior)
        del found["prior"]["decoder_blocks"]
    return found


def rescale_random_weights(net: nn.Module) -> None:
    """Rescale random weights so that features do not grow from stage to stage.

    Volterra factors are halved. Experts and routers are scaled so that a mixture adds a fraction of
    its input and no router selects a single expert. `amplify_prior` rescales the prior.
    """
    amplify_prior(net)
    for module in net.modules():
        if isinstance(module, VolterraFilter):
            for factor in (*module.wa, *module.wb):
                cast(nn.Conv2d, factor).weight.data *= 0.5
        elif isinstance(module, DDRE):
            for router in module.routers:
                cast(nn.Linear, router).weight.data *= 0.3
            for experts in module.grid:
                for expert in experts:
                    expert.pointwise.weight.data *= 0.3


PRIOR: dict[str, object] = {
    "width": 64,
    "encoder_blocks": [1, 1, 1, 28],
    "middle_blocks": 1,
    "kernel_size": 19,
    "prior_width": 64,
}

TINY: dict[str, object] = {
    "width": 8,
    "encoder_blocks": [1, 1, 1, 2],
    "middle_blocks": 1,
    "decoder_blocks": [1, 1, 1, 1],
}

TINY_PRIOR: dict[str, object] = {
    "width": 6,
    "encoder_blocks": [1, 1, 1, 2],
    "middle_blocks": 1,
    "kernel_size": 7,
    "prior_width": 8,
}


SPEC = ModelSpec(
    name="dhnet",
    title="DHNet",
    source="Gao and Dang, Towards Differential Handling of Various Blur Regions for Accurate Image "
    "Deblurring, 2025 (arXiv:2502.19677); reconstruction from the paper",
    build=DHNet,
    variants={
        "32": paper_variant(32),
        "64": {**paper_variant(64), "prior": PRIOR},
        "tiny": {**TINY, "routers": 2},
        "tiny-prior": {**TINY, "prior": TINY_PRIOR},
    },
    keys_present=("intro.weight", "encoders.0.ddre.routers.0.weight", "middle.blocks.0.gamma"),
    keys_absent=(),
    hyperparameters=hyperparameters,
    images=ImageSpec(STRIDE),
    local=("train_size",),
    published={
        "32": (Published(gmacs=32),),
        "64": (Published(gmacs=111, without=("prior",)),),
    },
    after_random=rescale_random_weights,
)
