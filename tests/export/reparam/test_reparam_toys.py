"""Batch norm folding and dead branch removal on toy modules; no network of the package needs
them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export import models
from deblur_export.export.reparam.fold_batch_norm import fold_batch_norm
from deblur_export.export.reparam.infra import Rewrite, reparameterize
from deblur_export.export.reparam.remove_dead_branches import remove_dead_branches
from deblur_export.manifest_blocks import PassReport
from deblur_export.models.random_weights import randomize
from tests.tolerances import FOLDED_FLOAT32


def image(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def run(rewrite: Rewrite, net: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, PassReport]:
    """Apply a pass; the result must be the same also for an input that the pass did not use."""
    folded, (report,) = reparameterize(net, [("it", rewrite)], (image(*shape),))
    with torch.no_grad():
        x = 3 * image(5, *shape[1:])
        torch.testing.assert_close(folded(x), net(x), **FOLDED_FLOAT32)
    return folded, report


class Toy(nn.Module):
    """A module of named layers with a function as its forward."""

    def __init__(self, rule: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.rule = rule
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(self, x)


def trained(norm: nn.Module) -> nn.Module:
    """A batch norm whose statistics and affine part are not the identity."""
    torch.manual_seed(0)
    for name, value in norm.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 2) if name == "running_var" else value.normal_()
    return norm


def bn(channels: int = 4, rank: int = 2, **options: Any) -> nn.Module:
    kind = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[max(rank, 1) - 1]
    return trained(kind(channels, **options))


def conv(**options: Any) -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1, **options)


def pooled() -> nn.Module:
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(pool, nn.Conv2d(4, 4, 1, bias=False), bn(), nn.Softmax(dim=1))


def by_keyword() -> nn.Module:
    return Toy(lambda m, x: m.norm(input=m.conv(x)), conv=conv(), norm=bn())


IMAGE, ROW, VECTOR = (2, 4, 6, 5), (2, 4, 7), (3, 4)
FOLDABLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "conv2d": (lambda: nn.Sequential(conv(), bn()), IMAGE, "1"),
    "no bias": (lambda: nn.Sequential(conv(bias=False), bn()), IMAGE, "1"),
    "grouped": (lambda: nn.Sequential(conv(groups=2), bn()), IMAGE, "1"),
    "not affine": (lambda: nn.Sequential(conv(), bn(affine=False)), IMAGE, "1"),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), bn(6, 1)), ROW, "1"),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(4, 6, 2), bn(6, 3)), (1, 4, 3, 4, 5), "1"),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3), bn(6)), IMAGE, "1"),
    "transposed, no bias": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, bias=False), bn(6)),
        IMAGE,
        "1",
    ),
    "linear": (lambda: nn.Sequential(nn.Linear(4, 6), bn(6, 1)), VECTOR, "1"),
    "linear, no bias": (lambda: nn.Sequential(nn.Linear(4, 6, bias=False), bn(6, 1)), VECTOR, "1"),
    "linear, not affine": (
        lambda: nn.Sequential(nn.Linear(4, 6), bn(6, 1, affine=False)),
        VECTOR,
        "1",
    ),
    "pooled, then softmax": (pooled, IMAGE, "2"),
    "nested": (lambda: nn.Sequential(nn.ReLU(), nn.Sequential(conv(), bn())), IMAGE, "1.1"),
    "called by keyword": (by_keyword, IMAGE, "norm"),
}


@pytest.mark.parametrize("case", FOLDABLE)
def test_batch_norm_is_folded(case: str) -> None:
    make, shape, name = FOLDABLE[case]
    net = make().eval()
    folded, report = run(fold_batch_norm, net, shape)
    assert report.changed == (name,)
    assert not report.declined
    assert isinstance(folded.get_submodule(name), nn.Identity)
    assert not isinstance(net.get_submodule(name), nn.Identity)


def toy(rule: Callable[[Any, Tensor], Tensor], layer: nn.Module | None = None) -> nn.Module:
    return Toy(rule, conv=layer or conv(), norm=bn())


DECLINED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "conv called twice": (
        lambda: toy(lambda m, x: m.norm(m.conv(m.conv(x)))),
        IMAGE,
        "conv has other consumers",
    ),
    "conv output used twice": (
        lambda: toy(lambda m, x: (lambda y: m.norm(y) + y)(m.conv(x))),
        IMAGE,
        "conv has other consumers",
    ),
    "norm called twice": (
        lambda: toy(lambda m, x: m.norm(m.norm(m.conv(x)))),
        IMAGE,
        "called 2 times",
    ),
    "never called": (lambda: toy(lambda m, x: m.conv(x)), IMAGE, "called 0 times"),
    "function in between": (
        lambda: toy(lambda m, x: m.norm(m.conv(x).relu())),
        IMAGE,
        "its input is not the output of a layer",
    ),
    "first layer": (
        lambda: toy(lambda m, x: m.conv(m.norm(x))),
        IMAGE,
        "its input is not the output of a layer",
    ),
    "layer in between": (
        lambda: toy(lambda m, x: m.norm(m.conv(x)), nn.ReLU()),
        IMAGE,
        "conv is a ReLU, not a convolution or linear layer",
    ),
    "no running statistics": (
        lambda: Toy(
            lambda m, x: m.norm(m.conv(x)), conv=conv(), norm=bn(track_running_stats=False)
        ),
        IMAGE,
        "it normalizes with the statistics of the batch",
    ),
    "control flow": (
        lambda: toy(lambda m, x: m.norm(m.conv(x)) if x.shape[2] > 3 else m.norm(-m.conv(x))),
        IMAGE,
        "torch.fx cannot trace its parent: symbolically traced variables cannot be used",
    ),
    "grouped transposed": (
        lambda: toy(lambda m, x: m.norm(m.conv(x)), nn.ConvTranspose2d(4, 4, 3, groups=2)),
        IMAGE,
        "conv is a grouped transposed convolution",
    ),
    "another axis": (
        lambda: toy(lambda m, x: m.norm(m.conv(x)), nn.Linear(5, 7)),
        IMAGE,
        "conv operates along another axis",
    ),
}


@pytest.mark.parametrize("case", DECLINED)
def test_batch_norm_is_declined(case: str) -> None:
    make, shape, reason = DECLINED[case]
    net = make().eval()
    folded, report = run(fold_batch_norm, net, shape)
    ((name, why),) = report.declined
    assert (name, why[: len(reason)], report.changed) == ("norm", reason, ())
    for key, value in net.state_dict().items():
        assert torch.equal(folded.state_dict()[key], value), key


def test_batch_norm_behind_data_dependent_control_flow_is_declined() -> None:
    """Called directly, because counting multiply-adds needs a network that runs without data."""
    net = toy(lambda m, x: m.norm(m.conv(x)) if x.sum() > 0 else x).eval()
    changes = fold_batch_norm(net, (image(*IMAGE),))
    ((name, reason),) = changes.declined
    assert name == "norm"
    assert reason.startswith("torch.fx cannot trace its parent")
    assert not changes.changed


def test_batch_norm_left_in_training_mode_is_declined() -> None:
    net = toy(lambda m, x: m.norm(m.conv(x))).eval()
    net.get_submodule("norm").train()
    (declined,) = fold_batch_norm(net, (image(*IMAGE),)).declined
    assert declined == ("norm", "it normalizes with the statistics of the batch")


class Scale(nn.Module):
    """A module whose parameter is used in training only; inference doubles the input."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha if self.training else 2 * x


class Shift(nn.Module):
    """A module with a parameter that is read inside a list, and one that is not read."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Parameter(torch.ones(2))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.cat([self.used, self.used]).view(1, 4, 1, 1)


def tied() -> nn.Module:
    net = nn.Sequential(conv(), nn.ReLU(), conv())
    net[2].weight = net[0].weight
    return net


def body_only(net: Any, x: Tensor) -> Tensor:
    return net.body(x)  # type: ignore[no-any-return]


def head() -> nn.Module:
    return nn.Sequential(conv(), nn.Dropout(), bn())


DEAD: dict[str, tuple[Callable[[], nn.Module], list[str], set[str]]] = {
    "everything used": (lambda: nn.Sequential(conv(), nn.ReLU(), bn()), [], set()),
    "tied weights": (tied, [], set()),
    "training head": (
        lambda: Toy(body_only, body=conv(), head=head()),
        ["head"],
        {f"head.{key}" for key in head().state_dict()},
    ),
    "head inside a block": (
        lambda: nn.Sequential(Toy(body_only, body=conv(), head=conv(bias=False))),
        ["0.head"],
        {"0.head.weight"},
    ),
    "one parameter of a block": (lambda: nn.Sequential(Shift()), ["0.unused"], {"0.unused"}),
    "one parameter of the network": (Shift, ["unused"], {"unused"}),
    "all parameters of a block that runs": (
        lambda: nn.Sequential(conv(), Scale()),
        ["1.alpha"],
        {"1.alpha"},
    ),
    "dropout": (
        lambda: nn.Sequential(nn.Dropout2d(0.9), nn.Sequential(conv(), nn.Dropout(0.9))),
        ["0", "1.1"],
        set(),
    ),
    "weight without its layer": (
        lambda: Toy(lambda m, x: F.conv2d(x, m.conv.weight, padding=1), conv=conv()),
        ["conv.bias"],
        {"conv.bias"},
    ),
}


@pytest.mark.parametrize("case", DEAD)
def test_dead_branches(case: str) -> None:
    make, changed, gone = DEAD[case]
    net = make().eval()
    folded, report = run(remove_dead_branches, net, IMAGE)
    assert list(report.changed) == changed
    assert net.state_dict().keys() - folded.state_dict().keys() == gone
    assert not folded.state_dict().keys() - net.state_dict().keys()
    assert not any(isinstance(module, nn.Dropout | nn.Dropout2d) for module in folded.modules())
    lost = sum(value.numel() for key, value in net.named_parameters() if key in gone)
    assert report.parameters_before - report.parameters_after == lost


# Parameters of the official code that are never read, or only in training.
NEVER_READ = {
    "aibnet": {"sub_decoders.0.ending"},
    "algnet": {"ConvsOut", "conv3_2", "gamma"},
    "ufpnet": {"kernel_down.2", "kernel_down.3"},
}


@pytest.mark.parametrize("name", models.NAMES)
def test_networks_have_only_known_dead_branches(name: str) -> None:
    """Parameters that only a custom op reads are not dead."""
    spec = models.get(name)
    net = spec.build(**spec.variants["tiny"])
    randomize(net, spec, 0)
    changes = remove_dead_branches(net.eval(), (image(1, 3, 32, 32),))
    known = NEVER_READ.get(name, set())
    assert {next((k for k in known if w.endswith(k)), w) for w in changes.changed} == known
    assert not changes.declined
