"""M2AENet: mask- and motion-aware deblurring on NAFNet-32 (Shang et al. 2025, arXiv:2507.07708).

A reconstruction from the paper; parameter names are chosen here where NAFNet has none. Encoder
stage 4 has a mask predictor (which pixels are blurred), an intra-motion analyzer (how each pixel
moved) and blocks that compute their first half only at blurred pixels and sample their second half
along the motion. The interpretation chosen here reproduces the published 17.44 M parameters. No
interpretation reproduces the published MACs; see docs/networks.md.

Departures from the text, counted by bench/readings.py:
- Eq. 1 concatenates all channels of f' with their means. Here half of the channels is kept and the
  means of the other half are appended, as in LMD-ViT, whose predictor this is. As written the
  network has 17.471 M parameters.
- Eq. 5 and 6 have no beta and gamma. Here the residual branches have those of NAFNet's block, on
  which they are modelled. Without them there are 17.424 M.
- Eq. 1, 5 and 6 as written, with deformable convolutions without a bias, have 17.442 M, which also
  rounds to 17.44: the published figure does not decide between that network and this one (17.438).
  Weights of this one cannot be converted to it, because nothing replaces the bias at the border.
- Eq. 2 draws the mask by Gumbel-softmax from the probabilities p. Here it is given the logits,
  which is the same draw: Gumbel-softmax adds its noise to log p (Jang et al. 2017, Eq. 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from deblur_export.models.blocks.decision import Decision, Inputs
from deblur_export.models.blocks.masked import UnfoldedMaskedConv
from deblur_export.models.blocks.naf import NAFBlock, add_scaled
from deblur_export.models.blocks.padding import pad_to_multiple
from deblur_export.models.image_spec import ImageSpec
from deblur_export.models.nafnet import (
    STRIDE,
    TINY,
    NAFNet,
    hyperparameters,
    paper_variant,
)
from deblur_export.models.spec import ModelSpec, Published
from deblur_export.plugins.ops.motion_deform_conv import motion_deform_conv
from deblur_export.plugins.ops.pruned_conv import pruned_conv

TAPS = 9
MOTION_LEVEL = 3  # index of the encoder stage with masks and motion


class TrainingOutput(NamedTuple):
    """The inputs of the loss; h x w = H/8 x W/8 of the padded image.

    Attributes:
        restored: [N, 3, H, W].
        logits: [N, 2, h, w]; channel 0 is the class "blurred".
        mask: [N, 1, h, w], binary samples with straight-through gradient.
        flow: [N, 4, h, w], displacements (x0, y0, x8, y8) at the first and last moment of the
            exposure, in pixels of the h x w grid.
    """

    restored: Tensor
    logits: Tensor
    mask: Tensor
    flow: Tensor


class MaskPredictor(nn.Module):
    """Classifies each pixel as blurred or sharp (the predictor of LMD-ViT, Li et al. 2023).

    Half of the embedding is replaced by its mean over the image, so that a pixel is compared with
    its surroundings. `head` returns two logits, or a single margin after folding.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(channels, channels),
            nn.GELU(),
            nn.LayerNorm(channels),
            nn.Linear(channels, channels),
        )
        self.head = nn.Sequential(
            nn.Linear(channels, channels // 2),
            nn.GELU(),
            nn.Linear(channels // 2, channels // 4),
            nn.GELU(),
            nn.Linear(channels // 4, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, H, W] -> logits [N, 2, H, W] (channel 0 is "blurred"), or a margin
        [N, 1, H, W] after folding."""
        tokens = self.embed(x.permute(0, 2, 3, 1))
        local, context = tokens.chunk(2, dim=-1)
        # In two steps for float32 accuracy; see GlobalAveragePool.
        context = context.mean(dim=2, keepdim=True).mean(dim=1, keepdim=True).expand_as(local)
        return self.head(torch.cat([local, context], dim=-1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class MaskThreshold(Decision):
    """Thresholds the scores of the predictor to a binary mask: 1 if softmax(logits)[0] > threshold.

    p0 > t is equivalent to z0 - z1 > log(t / (1 - t)), so no softmax is computed.
    """

    tolerance = 1e-4
    min_flips = 1

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold

    @property
    def logit(self) -> float:
        """log(t / (1 - t)) of the threshold t."""
        return math.log(self.threshold / (1 - self.threshold))

    def margin(self, scores: Tensor) -> Tensor:
        """Logits [N, 2, H, W], or an already folded margin [N, 1, H, W] -> margin [N, 1, H, W]."""
        if scores.shape[1] == 1:
            return scores
        return scores[:, :1] - scores[:, 1:] - self.logit

    def forward(self, scores: Tensor) -> Tensor:
        """Scores, as of `margin` -> mask [N, 1, H, W] of 0 and 1 in the dtype of the scores."""
        return (self.margin(scores) > 0).to(scores.dtype)

    def is_choice(self, own: Tensor, other: Tensor) -> bool:
        return bool(((other == 0) | (other == 1)).all())

    def differences(self, inputs: Inputs, own: Tensor, other: Tensor) -> Tensor:
        return own != other

    def distance(self, inputs: Inputs, own: Tensor, other: Tensor) -> Tensor:
        """[N, 1, H, W], in units of a logit."""
        return self.margin(inputs[0]).abs()


def trajectory_matrix() -> Tensor:
    """The matrix [18, 4], float64, from (x0, y0, x8, y8) to the offsets (dy, dx) of the nine taps.

    o(t_n) = (o0 + o8)/2 s^2 + (o8 - o0)/2 s with s = 2n/8 - 1: the parabola through the
    displacements at the first and last moment and zero displacement at the middle (quadratic motion
    of M2AENet).
    """
    matrix = torch.zeros(TAPS, 2, 4, dtype=torch.float64)
    for n in range(TAPS):
        s = 2 * n / 8 - 1
        first, last = (s * s - s) / 2, (s * s + s) / 2
        matrix[n, 0, 1], matrix[n, 0, 3] = first, last  # dy
        matrix[n, 1, 0], matrix[n, 1, 2] = first, last  # dx
    return matrix.view(2 * TAPS, 4)


class MotionAnalyzer(nn.Module):
    """Predicts the displacement of each pixel at nine moments of the exposure.

    `flow` predicts the displacement at the first and last moment; after the interpolation is folded
    into it, it predicts all nine.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.flow = nn.Conv2d(channels, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, H, W] -> offsets [N, 18, H, W], (dy, dx) of each tap, in pixels."""
        flow = self.flow(x)
        return flow if flow.shape[1] == 2 * TAPS else self.interpolate(flow)

    def interpolate(self, flow: Tensor) -> Tensor:
        """Flow [N, 4, H, W] -> offsets [N, 18, H, W]."""
        return F.conv2d(flow, trajectory_matrix().to(flow).view(2 * TAPS, 4, 1, 1))


class MotionDeformConv2d(nn.Module):
    """Depth-wise 3x3 deformable convolution along the motion (see plugins/ops).

    With `gate`, the output is the product of the two halves of the channels.
    """

    def __init__(self, channels: int, gate: bool = False) -> None:
        super().__init__()
        self.gate = gate
        self.weight = Parameter(Tensor(channels, 1, 3, 3))
        self.bias = Parameter(Tensor(channels).fill_(0))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """x [N, C, H, W] and offset [N, 18, H, W] -> [N, C, H, W]; with `gate`, half of C."""
        return motion_deform_conv(  # type: ignore[no-any-return]
            x, offset, self.weight, self.bias, group=self.weight.shape[0], gate=int(self.gate)
        )


class M2ASBlock(NAFBlock):
    """NAFNet's block with a masked first half and a motion-aware second half (Eq. 5 and 6)."""

    layer_norms: ClassVar[Sequence[tuple[str, ...]]] = (("norm2", "conv4"),)
    unfolded_layer_norms: ClassVar[Mapping[str, str]] = {
        "norm1": "sharp pixels copy its output past conv1, which therefore cannot absorb it"
    }

    def __init__(self, channels: int, window: int | None = None) -> None:
        super().__init__(channels, window)
        self.deform = MotionDeformConv2d(2 * channels, gate=True)
        self.unfolded: UnfoldedMaskedConv | None = None  # replaces conv1 and conv2 after merging

    def forward(self, x: Tensor, mask: Tensor, offset: Tensor) -> Tensor:  # type: ignore[override]
        """x [N, C, H, W], mask [N, 1, H, W] (1 = blurred), offset [N, 18, H, W] ->
        [N, C, H, W]."""
        x = self.attend(x, self.masked_gate(self.norm1(x), mask))
        y = self.deform(self.conv4(self.norm2(x)), offset)
        return add_scaled(x, self.conv5(y), self.gamma)

    def masked_gate(self, x: Tensor, mask: Tensor) -> Tensor:
        """The gate of the depth-wise 3x3 of the 1x1 of x at blurred pixels, and the gate of x
        concatenated with itself at sharp ones."""
        if self.unfolded is not None:
            return self.unfolded(x, mask)  # type: ignore[no-any-return]
        if self.training:  # dense, so that the straight-through mask receives its gradient
            computed = self.conv2(self.conv1(x))
            return self.gate(mask * computed + (1 - mask) * torch.cat([x, x], dim=1))  # type: ignore[no-any-return]
        conv1, conv2 = self.conv1, self.conv2
        return pruned_conv(  # type: ignore[no-any-return]
            x, mask, conv1.weight, conv1.bias, conv2.weight, conv2.bias, group=conv2.groups
        )


class M2ASStage(nn.ModuleList):
    """The motion-aware blocks of a stage; mask and motion are computed once for all of them."""

    def forward(self, x: Tensor, mask: Tensor, offset: Tensor) -> Tensor:
        for block in self:
            x = block(x, mask, offset)
        return x


class M2AENet(NAFNet):
    """NAFNet whose fourth encoder stage is mask- and motion-aware.

    Args:
        width, encoder_blocks, middle_blocks, decoder_blocks, train_size: as in `NAFNet`.
        threshold: a pixel counts as blurred if its probability is above this (the paper's epsilon).
    """

    def __init__(
        self,
        width: int = 32,
        encoder_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        decoder_blocks: Sequence[int] = (1, 1, 1, 1),
        threshold: float = 0.5,
        train_size: int | None = None,
    ) -> None:
        super().__init__(width, encoder_blocks, middle_blocks, decoder_blocks, train_size)
        channels = width * 2**MOTION_LEVEL
        self.mask_predictor = MaskPredictor(channels)
        self.mask = MaskThreshold(threshold)
        self.motion_analyzer = MotionAnalyzer(channels)

    def encoder_stage(self, level: int, channels: int, count: int, window: int | None) -> nn.Module:
        if level != MOTION_LEVEL:
            return super().encoder_stage(level, channels, count, window)
        return M2ASStage(M2ASBlock(channels, window) for _ in range(count))

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor | TrainingOutput:  # type: ignore[override]
        """Restore a blurred image.

        Args:
            image: [N, 3, H, W], RGB in 0..1, of any size.
            mask: [N, 1, ceil(H/16)*2, ceil(W/16)*2] of 0 and 1 to use instead of the predicted
                one (inference only).

        Returns:
            In eval mode [N, 3, H, W], not clamped to 0..1; in training mode a `TrainingOutput`.
        """
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, STRIDE)
        if self.training:
            output = self.forward_training(padded)
            return output._replace(restored=output.restored[..., :height, :width])
        return self.forward_padded(padded, mask)[..., :height, :width]

    def forward_padded(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Like `forward` in eval mode, for H and W that are multiples of 16."""
        x, skips = self.encode_shallow(image)
        predicted = self.mask(self.mask_predictor(x))
        offset = self.motion_analyzer(x)
        return self.finish(x, predicted if mask is None else mask, offset, skips, image)

    def forward_training(self, image: Tensor) -> TrainingOutput:
        """The dense forward pass in training, with masks from Gumbel-softmax samples with tau = 1
        (Jang et al. 2017)."""
        x, skips = self.encode_shallow(image)
        logits = self.mask_predictor(x)
        mask = F.gumbel_softmax(logits, tau=1.0, hard=True, dim=1)[:, :1]
        flow = self.motion_analyzer.flow(x)
        offset = self.motion_analyzer.interpolate(flow)
        return TrainingOutput(self.finish(x, mask, offset, skips, image), logits, mask, flow)

    def encode_shallow(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The input features of the motion-aware stage, and the skip connections before it."""
        x = self.intro(image)
        skips = []
        for level in range(MOTION_LEVEL):
            x = self.encoders[level](x)
            skips.append(x)
            x = self.downs[level](x)
        return x, skips

    def finish(
        self, x: Tensor, mask: Tensor, offset: Tensor, skips: list[Tensor], image: Tensor
    ) -> Tensor:
        """Run the motion-aware stage and everything after it."""
        x = self.encoders[MOTION_LEVEL](x, mask, offset)
        bottom = self.middle_blks(self.downs[MOTION_LEVEL](x))
        return self.decode(bottom, [*skips, x], image)


def balance_mask(net: nn.Module) -> None:
    """Shift the mask threshold of a network with random weights so that both branches are used.

    The shift is the median margin on a test image, rounded to 1/16 so that it does not depend on
    the rounding of the machine.
    """
    assert isinstance(net, M2AENet)
    yy, xx = torch.meshgrid(torch.linspace(0, 9, 128), torch.linspace(0, 7, 128), indexing="ij")
    probe = torch.stack([(yy * k).sin() * (xx * (3 - k)).cos() for k in (1, 2, 1.5)]) / 2 + 0.5
    with torch.no_grad():
        features, _ = net.encode_shallow(probe[None])
        median = net.mask.margin(net.mask_predictor(features)).median().item()
        last = net.mask_predictor.head[-1]
        assert isinstance(last, nn.Linear)
        last.bias[0] -= round(16 * median) / 16


SPEC = ModelSpec(
    name="m2aenet",
    title="M2AENet",
    source="Shang et al., Motion-Aware Adaptive Pixel Pruning for Efficient Local Motion "
    "Deblurring, 2025 (arXiv:2507.07708); reconstruction from the paper",
    build=M2AENet,
    variants={"base": paper_variant(32), "tiny": TINY},
    keys_present=("intro.weight", "mask_predictor.head.4.weight", "encoders.3.0.deform.weight"),
    keys_absent=(),
    hyperparameters=hyperparameters,
    images=ImageSpec(STRIDE),
    local=("train_size",),
    blur_mask="mask",
    published={
        "base": (
            Published(parameters=17.44e6, tolerance=0.0005),
            Published(
                gmacs=759,
                size=(1436, 2152),
                tolerance=0.005,
                matched=False,
                note="depends on the fraction of blurred pixels, which is not given; deformable "
                "convolution is listed with 37 times its products",
            ),
        )
    },
    after_random=balance_mask,
)
