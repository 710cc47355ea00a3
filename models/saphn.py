"""SAPHN, the spatially-attentive patch-hierarchical network, uniform and non-uniform (SAPHN+).

Suin, Purohit, Rajagopalan, CVPR 2020 (arXiv:2004.05343), and 2024 (arXiv:2402.06117). Three
stages restore four quarters, two halves and the whole image, each with the residual of the
previous one.

A reconstruction: no official code was found, and the table of layers is in a supplement that was
not available. The following is chosen because it has about the published 136 GMACs (uniform) and
23 M parameters and 140 GMACs (non-uniform) at 256x256: widths 32, 64, 128 and 128 at four scales;
two residual blocks per scale in the encoder and in the decoder, each with one content-aware module
with dense pixel-dependent filters; cross attention to the encoder at each scale and, in stages two
and three, to the decoder of the previous stage. The following is chosen without such evidence:
bounded offsets, padding by reflection, images in 0..1 without a shift, OP_k = OP_(k-1) +
residual_k, the image plus the previous residual as input of a stage, and the whole interaction of
points and grids in the non-uniform stages (blocks/saphn_nonuniform.py).

A departure from the text (arXiv:2402.06117, Sec. 3.2): cross attention is a part of the global
branch that the content-aware module fuses with its filter. Here it is a residual of its own, once a
scale. Inside one block a scale it would have the same parameters and products, so that the
published figures do not decide; inside every block the uniform network has 23.15 M parameters and
139.6 GMACs (bench/readings.py). Weights do not convert, because the fusion map would weight it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deblur_export.models.blocks.padding import pad_to_multiple
from deblur_export.models.blocks.saphn_attention import REDUCTION
from deblur_export.models.blocks.saphn_nonuniform import Drawn, NonUniformStage, PointBlock
from deblur_export.models.blocks.saphn_points import Selection
from deblur_export.models.blocks.saphn_stage import Stage
from deblur_export.models.image_spec import ImageSpec, Padding
from deblur_export.models.spec import ModelSpec, Published, count_blocks

SCALES = 4
STRIDE = 16  # two patches along each axis, and three convolutions with stride 2
PADDING: Padding = "reflect"
PATCHES = ((2, 2), (2, 1), (1, 1))  # rows and columns of patches in each stage
OVERDRAWN = 0.5  # penalty in the reward for drawing more points than at test time


class Policy(NamedTuple):
    """The inputs of the policy gradient of the samplers, at the padded size.

    Attributes:
        probability: G of each of the two non-uniform stages, [N, 1, H, W].
        samples: for each stage the masks, 0 or 1, of the pixels drawn at scales 2, 4 and 8,
            [N, 1, H, W].
        log_prob: log-probability of each pixel's draws, [N, 1, H, W].
        drawn: number of points drawn in all scales and stages, [N].
        budget: number of points that are used at test time.
    """

    probability: tuple[Tensor, ...]
    samples: tuple[tuple[Tensor, ...], ...]
    log_prob: Tensor
    drawn: Tensor
    budget: int


class TrainingOutput(NamedTuple):
    """The inputs of the loss: OP_3 (`restored`), all three OP_k (`outputs`), and for the
    non-uniform network the draws (`policy`)."""

    restored: Tensor
    outputs: tuple[Tensor, ...]
    policy: Policy | None


def reward(output: TrainingOutput, target: Tensor) -> Tensor:
    """The reward R of each pixel, [N, 1, H, W] (arXiv:2402.06117, Eq. 5).

    R = -(|OP_3 - GT| + |OP_2 - GT|), each the mean over the channels, minus 0.5 at every pixel of
    an image for which more points were drawn than at test time. REINFORCE maximises it with the
    loss -(R.detach() - baseline) * log_prob.

    Args:
        output: of the non-uniform network in training mode.
        target: ground truth [N, 3, H, W] in 0..1.
    """
    assert output.policy is not None, "only the non-uniform network draws"
    errors = [(restored - target).abs().mean(1, keepdim=True) for restored in output.outputs[1:]]
    overdrawn = output.policy.drawn > output.policy.budget
    return -torch.stack(errors).sum(0) - OVERDRAWN * overdrawn.view(-1, 1, 1, 1)


class SAPHN(nn.Module):
    """The three stages of SAPHN.

    Args:
        widths: channels at full, half, quarter and eighth size; multiples of 8. There are at least
            two scales.
        encoder_blocks, decoder_blocks: number of residual blocks per scale (the paper's M and P).
        nonuniform: stages two and three work on sampled points (SAPHN+).

    Raises:
        ValueError: the widths are not two to four multiples of 8.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 128),
        encoder_blocks: int = 2,
        decoder_blocks: int = 2,
        nonuniform: bool = False,
    ) -> None:
        super().__init__()
        if not 2 <= len(widths) <= SCALES or any(w < REDUCTION or w % REDUCTION for w in widths):
            raise ValueError(f"SAPHN: widths {widths} are not two to four multiples of {REDUCTION}")
        upper = NonUniformStage if nonuniform else Stage
        arguments = (widths, encoder_blocks, decoder_blocks)
        self.stages = nn.ModuleList(
            [
                Stage(*arguments, lower=False),
                upper(*arguments, lower=True),
                upper(*arguments, lower=True),
            ]
        )

    def forward(self, image: Tensor) -> Tensor | TrainingOutput:
        """Restore a blurred image.

        Args:
            image: [N, 3, H, W], RGB in 0..1, of any size.

        Returns:
            In eval mode [N, 3, H, W], not clamped to 0..1; in training mode a `TrainingOutput`.
        """
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, STRIDE, PADDING)
        if not self.training:
            return self.forward_padded(padded)[..., :height, :width]
        drawn: list[Drawn] = []
        outputs = tuple(x[..., :height, :width] for x in self.progress(padded, drawn))
        return TrainingOutput(outputs[-1], outputs, policy(drawn) if drawn else None)

    def forward_padded(self, image: Tensor) -> Tensor:
        """Like `forward` in eval mode, for H and W that are multiples of 16."""
        return self.progress(image)[-1]

    def progress(self, image: Tensor, drawn: list[Drawn] | None = None) -> list[Tensor]:
        """OP_1, OP_2 and OP_3, [N, 3, H, W].

        With a list `drawn`, the non-uniform stages draw points at random and append the draws.
        """
        outputs = [image]
        x, features = image, list[Tensor]()
        for stage, grid in zip(self.stages, PATCHES, strict=True):
            patches = split(x, *grid), [split(feature, *grid) for feature in features]
            if drawn is not None and isinstance(stage, NonUniformStage):
                drawn.append(stage.draw(patches[1]))
                residual, features = stage(*patches, drawn[-1].selections)
            else:
                residual, features = stage(*patches)
            residual = join(residual, *grid)
            features = [join(feature, *grid) for feature in features]
            outputs.append(outputs[-1] + residual)
            x = image + residual
        return outputs[1:]


def split(x: Tensor, rows: int, columns: int) -> Tensor:
    """Split x [N, C, H, W] into patches [N*rows*columns, C, H/rows, W/columns]; the patches of an
    image are adjacent."""
    n, c, h, w = x.shape
    x = x.reshape(n, c, rows, h // rows, columns, w // columns).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(-1, c, h // rows, w // columns)


def join(x: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `split`."""
    _, c, h, w = x.shape
    x = x.reshape(-1, rows, columns, c, h, w).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(-1, c, rows * h, columns * w)


def policy(drawn: Sequence[Drawn]) -> Policy:
    """Join the draws of all stages, and of all patches of an image."""
    probability, samples, log_prob, counts = [], [], [], []
    budget = 0
    for stage, grid in zip(drawn, PATCHES[1:], strict=True):
        patches = grid[0] * grid[1]
        masks = [mask_of(chosen, stage.logits) for chosen in stage.selections]
        probability.append(join(stage.logits.sigmoid(), *grid))
        samples.append(tuple(join(mask, *grid) for mask in masks))
        log_prob.append(join(stage.log_prob, *grid))
        counts += [mask.sum((1, 2, 3)).view(-1, patches).sum(1) for mask in masks]
        pixels = patches * stage.logits[0].numel()
        budget += sum(pixels // 4**scale for scale in range(1, len(masks) + 1))
    return Policy(
        tuple(probability),
        tuple(samples),
        torch.stack(log_prob).sum(0),
        torch.stack(counts).sum(0),
        budget,
    )


def mask_of(chosen: Selection, like: Tensor) -> Tensor:
    """A mask that is 1 at the selected pixels and 0 elsewhere, in the shape of `like`
    [N, 1, H, W]."""
    flags = torch.ones_like(chosen.pixel) if chosen.valid is None else chosen.valid
    mask = like.new_zeros(len(like), like[0].numel())
    return mask.scatter(1, chosen.pixel, flags.to(like.dtype)).view_as(like)


def hyperparameters(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Read the constructor arguments from keys and shapes of a state dict."""
    downs = count_blocks(state, "stages.0.encoder.downs.")
    coarse = [state[f"stages.0.encoder.downs.{i}.weight"].shape[0] for i in range(downs)]
    return {
        "widths": [state["stages.0.encoder.intro.weight"].shape[0], *coarse],
        "encoder_blocks": count_blocks(state, "stages.0.encoder.blocks.0."),
        "decoder_blocks": count_blocks(state, "stages.0.decoder.blocks.0."),
        "nonuniform": any(key.startswith("stages.1.sampler.") for key in state),
    }


def rescale_random_weights(net: nn.Module) -> None:
    """Rescale random weights so that coarse scales affect the output and features stay small.

    A transposed convolution has a quarter of the fan-in that `randomize` divides by; twice the
    weight would restore the variance. However, the filters are quadratic in their input: features
    much larger than one would grow without bound, and so do sums of residuals without the filters.
    """
    assert isinstance(net, SAPHN)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.ConvTranspose2d):
                module.weight.mul_(1.5)
            elif isinstance(module, PointBlock):
                module.conv.weight.mul_(0.3)
        for stage in net.stages:
            assert isinstance(stage, Stage)
            stage.ending.weight.mul_(0.15)


def variant(widths: Sequence[int], blocks: int, nonuniform: bool) -> dict[str, object]:
    """The constructor arguments of a variant."""
    return {
        "widths": list(widths),
        "encoder_blocks": blocks,
        "decoder_blocks": blocks,
        "nonuniform": nonuniform,
    }


SPEC = ModelSpec(
    name="saphn",
    title="SAPHN",
    source="Suin et al., Spatially-Attentive Patch-Hierarchical Network for Adaptive Motion "
    "Deblurring, CVPR 2020 (arXiv:2004.05343), non-uniform: arXiv:2402.06117; reconstruction "
    "from the papers",
    build=SAPHN,
    variants={
        "uniform": variant((32, 64, 128, 128), 2, nonuniform=False),
        "nonuniform": variant((32, 64, 128, 128), 2, nonuniform=True),
        "tiny": variant((16, 24), 1, nonuniform=False),
        "tiny-nonuniform": variant((16, 24), 1, nonuniform=True),
    },
    keys_present=("stages.2.encoder.intro.weight", "stages.0.encoder.blocks.0.0.content.weight"),
    keys_absent=(),
    hyperparameters=hyperparameters,
    images=ImageSpec(STRIDE, padding=PADDING),
    published={
        "uniform": (Published(gmacs=136, tolerance=0.01),),
        "nonuniform": (Published(parameters=23e6, gmacs=140, tolerance=0.025),),
    },
    after_random=rescale_random_weights,
)
