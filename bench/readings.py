"""Readings of the papers' text that the code does not follow, counted.

`rows` counts the parameters and multiply-adds of a network as the code has it and as the text can
be read; bench/published.py prints them as a table of docs/networks.md. Only structures differ in
counts: which loss a network trains with is in models/training/objective.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deblur_export import models
from deblur_export.models.blocks.saphn_nonuniform import (
    Encoded,
    NonUniformStage,
    PointEncoder,
    Project,
)
from deblur_export.models.blocks.saphn_points import Selection, as_rows, grid_around, pick
from deblur_export.models.blocks.volterra import VolterraFilter
from deblur_export.models.complexity import count_macs, count_parameters
from deblur_export.models.m2aenet import M2AENet, MaskPredictor
from deblur_export.models.saphn import SAPHN

M2AENET_SIZE = (1436, 2152)  # height and width of the images that its paper counts for


@dataclass(frozen=True)
class Count:
    """Parameters and multiply-adds of one image."""

    parameters: int
    macs: int


@dataclass(frozen=True)
class Reading:
    """A place where the text can be read otherwise than the code does.

    Attributes:
        network: name and variant.
        place: section or equation.
        text: what the network then has.
        published: the figures of the paper, as text.
        count: counts that network, given the one of the code.
        size: height and width of the image.
        without: modules that the published figures leave out.
    """

    network: tuple[str, str]
    place: str
    text: str
    published: str
    count: Callable[[Reading, nn.Module], Count]
    size: tuple[int, int] = (256, 256)
    without: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """The network of the code, in eval mode on the meta device."""
        name, variant = self.network
        spec = models.get(name)
        with torch.device("meta"):
            return spec.build(**spec.variants[variant]).eval()

    def plain(self, net: nn.Module, dropped: Sequence[str] = ()) -> Count:
        """Count a network whose parameters `dropped` do not exist; they cost no product."""
        macs = count_macs(net, *self.size, self.without).pure
        return Count(count_parameters(net, (*self.without, *dropped)), macs)


class WholeConcatenation(MaskPredictor):
    """The mask predictor that concatenates all channels with their means."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.head[0] = nn.Linear(2 * channels, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.permute(0, 2, 3, 1))
        context = tokens.mean(dim=(1, 2), keepdim=True).expand_as(tokens)
        return self.head(torch.cat([tokens, context], dim=-1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


def concatenate_all(net: nn.Module) -> None:
    """Eq. 1 of M2AENet."""
    assert isinstance(net, M2AENet)
    with torch.device("meta"):
        net.mask_predictor = WholeConcatenation(net.downs[2].out_channels)  # type: ignore[arg-type]


def of_stage(net: nn.Module, *names: str) -> list[str]:
    """The parameters with these names of all motion-aware blocks of M2AENet."""
    assert isinstance(net, M2AENet)
    blocks = len(net.encoders[3])  # type: ignore[arg-type]
    return [f"encoders.3.{number}.{name}" for number in range(blocks) for name in names]


def equation_1(reading: Reading, net: nn.Module) -> Count:
    concatenate_all(net)
    return reading.plain(net)


def equations_5_and_6(reading: Reading, net: nn.Module) -> Count:
    return reading.plain(net, of_stage(net, "beta", "gamma"))


def all_equations(reading: Reading, net: nn.Module) -> Count:
    concatenate_all(net)
    return reading.plain(net, of_stage(net, "beta", "gamma", "deform.bias"))


def cross_attention_in_every_block(reading: Reading, net: nn.Module) -> Count:
    """Every scale has two blocks and one cross attention; then it has two."""
    here, without = reading.plain(net), (*reading.without, "cross")
    bare = Count(count_parameters(net, without), count_macs(net, *reading.size, without).pure)
    return Count(2 * here.parameters - bare.parameters, 2 * here.macs - bare.macs)


class FullResolutionEncoder(PointEncoder):
    """The encoder whose points and neighbourhoods of every scale come from the features of full
    size, projected to the channels of the scale."""

    def __init__(self, widths: Sequence[int], count: int, lower: bool) -> None:
        super().__init__(widths, count, lower)
        self.projects = nn.ModuleList(Project(widths[0], width) for width in widths[1:])

    def forward(  # type: ignore[override]
        self, image: Tensor, lower: Sequence[Tensor], selections: Sequence[Selection]
    ) -> Encoded:
        assert self.cross is not None
        x = self.blocks[0](self.intro(image))
        x = x + self.cross[0](x, lower[0])
        encoded = Encoded([x], [as_rows(x)], [])
        for scale, chosen in enumerate(selections, start=1):
            around, points = self.projects[scale - 1](x, pick(as_rows(x), chosen.pixel))
            grid = grid_around(around, chosen.pixel, 1)
            uniform = self.downs[scale - 1](encoded.uniform[-1])
            uniform, points = self.blocks[scale](uniform, points, grid)
            points = points + self.cross[scale](uniform, points, lower[scale], grid)
            encoded.uniform.append(uniform)
            encoded.points.append(points)
            encoded.grids.append(grid)
        return encoded


class FullResolutionStage(NonUniformStage):
    encoder_class = FullResolutionEncoder


def points_of_full_size(reading: Reading, net: nn.Module) -> Count:
    assert isinstance(net, SAPHN)
    arguments = models.get("saphn").variants["nonuniform"]
    shape = arguments["widths"], arguments["encoder_blocks"], arguments["decoder_blocks"]
    for number in (1, 2):
        with torch.device("meta"):
            net.stages[number] = FullResolutionStage(*shape, lower=True).eval()
    return reading.plain(net)


def followed(conv: nn.Module) -> nn.Sequential:
    """A convolution of a Volterra filter, followed by a depth-wise 3x3."""
    assert isinstance(conv, nn.Conv2d)
    channels = conv.out_channels
    with torch.device("meta"):
        return nn.Sequential(conv, nn.Conv2d(channels, channels, 3, padding=1, groups=channels))


def filters(net: nn.Module) -> list[VolterraFilter]:
    return [module for module in net.modules() if isinstance(module, VolterraFilter)]


def two_linear_convolutions(reading: Reading, net: nn.Module) -> Count:
    for module in filters(net):
        module.w1 = followed(module.w1)  # type: ignore[assignment]
    return reading.plain(net)


def two_convolutions_a_factor(reading: Reading, net: nn.Module) -> Count:
    for module in filters(net):
        module.w1 = followed(module.w1)  # type: ignore[assignment]
        module.wa = nn.ModuleList(map(followed, module.wa))
        module.wb = nn.ModuleList(map(followed, module.wb))
    return reading.plain(net)


M2AENET = ("m2aenet", "base")
FIGURES = "17.44 M"
READINGS = (
    Reading(
        M2AENET,
        "Eq. 1",
        "all of f' beside its mean, not half of each",
        FIGURES,
        equation_1,
        M2AENET_SIZE,
    ),
    Reading(
        M2AENET,
        "Eq. 5, 6",
        "no beta and no gamma",
        FIGURES,
        equations_5_and_6,
        M2AENET_SIZE,
    ),
    Reading(
        M2AENET,
        "Eq. 1, 5, 6",
        "all of these, and no bias in the deformable convolution",
        FIGURES,
        all_equations,
        M2AENET_SIZE,
    ),
    Reading(
        ("saphn", "uniform"),
        "global branch",
        "cross attention in the fused branch of every block",
        "136 GMACs",
        cross_attention_in_every_block,
    ),
    Reading(
        ("saphn", "nonuniform"),
        "Sec. 3.1, 3.2.4",
        "points and patches of every scale from the features of full size",
        "23 M, 140 GMACs",
        points_of_full_size,
    ),
    *(
        Reading(("dhnet", variant), "Sec. 3.3", text, published, count, without=("prior",))
        for text, count in (
            ("a second 3x3 convolution in the linear branch", two_linear_convolutions),
            ("a second 3x3 convolution in every factor", two_convolutions_a_factor),
        )
        for variant, published in (("32", "32 GMACs"), ("64", "111 GMACs"))
    ),
)


def rows() -> Iterator[tuple[Reading, Count, Count]]:
    """Every reading, with the counts of the text and of the code."""
    for reading in READINGS:
        yield reading, reading.count(reading, reading.build()), reading.plain(reading.build())


def table() -> list[str]:
    """The readings as a table in GitHub Markdown, a line each."""
    lines = [
        "| network | place | the text, as it can be read | then | here | published |",
        "|---|---|---|---|---|---|",
    ]
    for reading, text, here in rows():
        title = models.get(reading.network[0]).title
        cells = [
            f"{title} {reading.network[1]}",
            reading.place,
            reading.text,
            _shown(text),
            _shown(here),
            reading.published,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _shown(count: Count) -> str:
    return f"{count.parameters / 1e6:.3f} M, {count.macs / 1e9:.1f} GMACs"
