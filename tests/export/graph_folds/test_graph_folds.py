"""Each fold of the captured graph is found in blocks of foreign networks; traps are declined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deblur_export.errors import CheckFailedError
from deblur_export.export.capture import Capture, capture_again
from deblur_export.export.graph_folds import GRAPH_PASSES
from deblur_export.export.graph_folds.fold import fold, folded_weights
from deblur_export.export.graph_folds.fold_batch_norm import fold_batch_norm
from deblur_export.export.graph_folds.program import Program
from deblur_export.export.reparam.infra import TOLERANCE, Changes
from deblur_export.models.image_spec import ImageSpec
from tests.export.graph_folds import blocks
from tests.export.graph_folds.blocks import Block, bn, conv, numbers, randomized

EIGHT, FREE = ImageSpec(8), ("batch", "height", "width")


def captured(net: nn.Module) -> Capture:
    return capture_again(net, EIGHT, ("batch", "height", "width"), (1, 3, 8, 8))


def calls(found: Capture) -> Counter[str]:
    nodes = (node for node in found.program.graph.nodes if node.op == "call_function")
    return Counter(str(node.target).removeprefix("aten.").split(".")[0] for node in nodes)


def folded(net: nn.Module) -> tuple[Capture, dict[str, tuple[str, ...]]]:
    """The folded program, which computes the same at a size of its own, and what each pass did."""
    found, reports = fold(captured(net), EIGHT)
    image = torch.rand(3, 3, 40, 16)
    with torch.no_grad():
        expected = net(image)
        error = (found.program.module()(image) - expected).abs().max() / expected.abs().max()
    assert error < 1e-4
    assert all(report.max_error <= TOLERANCE for report in reports)
    return found, {report.name: report.changed for report in reports if report.changed}


Made = Callable[[], nn.Module]
FOUND: dict[str, tuple[Made, dict[str, tuple[str, ...]], dict[str, int]]] = {
    "batch norm": (
        lambda: nn.Sequential(conv(3), bn()),
        {"fold_batch_norm": ("1",)},
        {"conv2d": 1},
    ),
    "batch norm and ReLU in place": (
        lambda: nn.Sequential(conv(3, 3, 8), nn.ReLU(inplace=True), conv(1, 8, 3), bn()),
        {"fold_batch_norm": ("3",)},
        {"conv2d": 2, "relu": 1},
    ),
    "batch norm before 1x1": (
        lambda: nn.Sequential(bn(), conv()),
        {"fold_batch_norm": ("0",)},
        {"conv2d": 1},
    ),
    "batch norm after transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 3, 2, 2), bn()),
        {"fold_batch_norm": ("1",)},
        {"conv_transpose2d": 1},
    ),
    "batch norm with float32 in the code": (
        lambda: Block(
            lambda m, x: m.bn(m.conv(x.float()).float()) + torch.zeros(1, dtype=torch.float32),
            conv=conv(),
            bn=bn(),
        ),
        {"fold_batch_norm": ("bn",)},
        {"conv2d": 1, "zeros": 1, "add": 1},
    ),
    "NAFNet's norm": (
        lambda: nn.Sequential(blocks.NAFNorm(), conv()),
        {
            "compute_constants": ("0.weight", "0.bias"),
            "recognise_layer_norm": ("0",),
            "fold_scale": ("0.weight", "0.bias"),
            "fold_norm_affine": ("0",),
        },
        {"permute": 2, "layer_norm": 1, "conv2d": 1},
    ),
    "NAFNet's norm before 3x3": (
        lambda: nn.Sequential(blocks.NAFNorm(), conv(3)),
        {
            "compute_constants": ("0.weight", "0.bias"),
            "recognise_layer_norm": ("0",),
            "fold_scale": ("0.weight", "0.bias"),
        },
        {"permute": 2, "layer_norm": 1, "conv2d": 1},
    ),
    "Restormer's norm with bias": (
        lambda: nn.Sequential(blocks.LastAxisNorm(True), conv(bias=False)),
        {
            "recognise_layer_norm": ("0",),
            "fold_scale": ("0.weight", "0.bias"),
            "fold_norm_affine": ("0",),
        },
        {"layer_norm": 1, "permute": 2, "conv2d": 1},
    ),
    "norm with rsqrt": (
        lambda: nn.Sequential(conv(), Block(blocks.rsqrt_norm)),
        {"recognise_layer_norm": ("1",)},
        {"permute": 2, "layer_norm": 1, "conv2d": 1},
    ),
    "norm read by two layers": (
        lambda: Block(
            lambda m, x: m.q(m.norm(x)) * m.k(m.norm(x)), norm=blocks.NAFNorm(), q=conv(), k=conv()
        ),
        {
            "compute_constants": ("norm.weight", "norm.bias", "norm.weight", "norm.bias"),
            "recognise_layer_norm": ("norm", "norm"),
            "fold_scale": ("norm.weight", "norm.bias", "norm.weight", "norm.bias"),
            "fold_norm_affine": ("norm", "norm"),
        },
        {"layer_norm": 2, "conv2d": 2, "mul": 1},
    ),
    "layer scale of zeros": (
        lambda: Block(lambda m, x: x + m.scale * m.conv(x), conv=conv(3), scale=numbers(3, 1, 1)),
        {"fold_scale": ("scale",)},
        {"conv2d": 1, "add": 1},
    ),
    "scale on tokens": (
        lambda: Block(
            lambda m, x: (m.scale * m.layer(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2) / m.other,
            layer=nn.Linear(3, 3),
            scale=numbers(3),
            other=numbers(3, 1, 1),
        ),
        {"fold_scale": ("scale", "other")},
        {"linear": 1, "permute": 2},
    ),
    "weight computed in the forward": (
        lambda: Block(
            lambda m, x: F.conv2d(x, torch.einsum("abc,cd->abd", m.w, m.d).view(3, 3, 3, 3)),
            w=numbers(3, 3, 5),
            d=numbers(5, 9),
        ),
        {"compute_constants": ("w",)},
        {"conv2d": 1},
    ),
    "1x1 after 3x3": (
        lambda: nn.Sequential(conv(3, 3, 8), conv(1, 8, 3)),
        {"merge_sequential": ("1",)},
        {"conv2d": 1},
    ),
    "3x3 after 1x1 without bias": (
        lambda: nn.Sequential(conv(1, 3, 8, bias=False), conv(3, 8, 3)),
        {"merge_sequential": ("1",)},
        {"conv2d": 1},
    ),
    "RepVGG": (
        blocks.repvgg,
        {"fold_batch_norm": ("b3", "b1"), "merge_branches": ("b3", "b1")},
        {"conv2d": 1, "relu": 1},
    ),
    "ACB": (
        blocks.acb,
        {"fold_batch_norm": ("bs", "bv", "bh"), "merge_branches": ("bs", "bv", "bh")},
        {"conv2d": 1},
    ),
    "ECB": (
        blocks.ecb_block,
        {
            "compute_constants": ("scale",),
            "merge_padding": ("",),
            "merge_sequential": ("valid",),
            "merge_branches": ("c3", "valid"),
        },
        {"conv2d": 3, "add": 2},
    ),
}


@pytest.mark.parametrize("case", FOUND)
def test_found(case: str) -> None:
    make, changed, left = FOUND[case]
    found, changes = folded(randomized(make()))
    assert changes == changed
    names = calls(found)
    assert {name: names[name] for name in left} == left
    moves = {"reshape", "permute", "sym_size", "<built-in function mul>"}  # h * w of a shape
    assert set(names) <= set(left) | moves


TRAPS: dict[str, tuple[Made, str, str]] = {
    "batch norm before a padded convolution": (
        lambda: nn.Sequential(bn(), conv(3)),
        "fold_batch_norm",
        "pads with zeros",
    ),
    "1x1 with bias before a padded convolution": (
        lambda: nn.Sequential(conv(1, 3, 8), conv(3, 8, 3)),
        "merge_sequential",
        "pads with zeros",
    ),
    "a narrow 1x1 in the middle": (
        lambda: nn.Sequential(conv(1, 3, 1), conv(1, 1, 3)),
        "merge_sequential",
        "more products",
    ),
    "a convolution and its norm called twice": (
        lambda: Block(lambda m, x: m.bn(m.conv(m.bn(m.conv(x)))), conv=conv(), bn=bn()),
        "fold_batch_norm",
        "shares its weight",
    ),
    "a weight used twice": (
        lambda: Block(
            lambda m, x: m.scale * m.conv(x) + m.conv(2 * x), conv=conv(), scale=numbers(3, 1, 1)
        ),
        "fold_scale",
        "shares its weight",
    ),
    "an output used twice": (
        lambda: Block(
            lambda m, x: (lambda y: m.scale * y + y)(m.conv(x)), conv=conv(), scale=numbers(3, 1, 1)
        ),
        "fold_scale",
        "other users",
    ),
    "written before the norm": (
        lambda: Block(blocks.written_before, conv=conv(), bn=bn()),
        "fold_batch_norm",
        "other users",
    ),
    "norm of the batch": (
        lambda: nn.Sequential(conv(), nn.BatchNorm2d(3, track_running_stats=False)),
        "fold_batch_norm",
        "statistics of the batch",
    ),
    "Restormer's norm without bias": (
        lambda: nn.Sequential(blocks.LastAxisNorm(False), conv()),
        "recognise_layer_norm",
        "deviation is used for something else",
    ),
    "norm whose deviation is shown": (
        lambda: Block(blocks.shown_deviation),
        "recognise_layer_norm",
        "deviation is used for something else",
    ),
    "norm over rows": (lambda: Block(blocks.rows_norm), "recognise_layer_norm", "other axes"),
}


@pytest.mark.parametrize("case", TRAPS)
def test_trap_is_declined(case: str) -> None:
    make, name, reason = TRAPS[case]
    net = randomized(make())
    _, reports = fold(captured(net), EIGHT)
    assert not any(report.changed for report in reports)
    declined = {report.name: report.declined for report in reports}
    assert declined[name] and all(reason in why for _, why in declined[name])


@pytest.mark.parametrize(
    "net",
    [
        Block(blocks.unbiased_norm),
        Block(blocks.written_after, conv=conv(), scale=numbers(3, 1, 1)),
        Block(lambda m, x: m.conv(x) * m.map, conv=conv(), map=numbers(1, 3, 1, 8)),
        Block(lambda m, x: m.a(x) + m.b(x.flip(3)), a=conv(3), b=conv(1)),
        Block(lambda m, x: x + m.a(x), a=conv(3)),
        Block(lambda m, x: m.a(x) + m.b(x), a=conv((1, 3)), b=conv((3, 1))),
    ],
)
def test_left_alone(net: nn.Module) -> None:
    net = randomized(net)
    shape = (1, 3, 16, 8)
    _, reports = fold(capture_again(net, EIGHT, (), shape), EIGHT)
    assert not any(report.changed for report in reports)


def scale_a_weight(by: float) -> Callable[[Program], Changes]:
    def wrong(program: Program) -> Changes:
        layer = next(n for n in program.graph.nodes if n.op == "call_function")
        weight = program.computed(lambda value: value * by, layer.args[1])
        layer.update_arg(1, weight)
        return Changes(["conv"])

    return wrong


@pytest.mark.parametrize("by", [1 + 1e-7, -1.0, float("nan")])
def test_a_wrong_pass_is_caught_and_named(by: float) -> None:
    with pytest.raises(CheckFailedError, match="pass wrong changed the output by"):
        fold(captured(randomized(nn.Sequential(conv(3)))), EIGHT, [scale_a_weight(by)])


def test_a_layer_scale_of_zeros_proves_nothing() -> None:
    """A pass that drops the branch is right with the trained weights, and is caught."""
    net = Block(lambda m, x: x + m.scale * m.conv(x), conv=conv(3), scale=numbers(3, 1, 1)).eval()

    def wrong(program: Program) -> Changes:
        add = next(n for n in program.graph.nodes if "add" in n.name)
        program.replace(add, program.image)
        return Changes(["scale"])

    with pytest.raises(CheckFailedError, match="pass wrong"):
        fold(captured(net), EIGHT, [wrong])


def test_a_network_that_rounds_is_left_as_it_is() -> None:
    net = Block(lambda m, x: m.bn(m.conv(x)).half().float(), conv=conv(), bn=bn())
    found, reports = fold(captured(randomized(net)), EIGHT)
    assert calls(found)["batch_norm"] == 1
    assert all("rounds inside" in report.declined[0][1] for report in reports)


def test_a_network_that_overflows_with_moved_weights_is_left_as_it_is() -> None:
    """Which proves nothing, and is no fault of a pass."""
    net = Block(
        lambda m, x: m.bn(m.conv(x)) * (0.01 - m.scale).log(),
        conv=conv(),
        bn=bn(),
        scale=numbers(3, 1, 1),
    )
    found, reports = fold(captured(net.eval()), EIGHT)
    assert calls(found)["batch_norm"] == 1
    assert all("NaN or infinity" in report.declined[0][1] for report in reports)


def test_a_network_that_a_pass_fails_on_is_left_as_it_is() -> None:
    def failing(program: Program) -> Changes:
        fold_batch_norm(program)
        raise KeyError("val")

    net = randomized(nn.Sequential(conv(), bn()))
    found, (report,) = fold(captured(net), EIGHT, [failing])
    assert calls(found)["batch_norm"] == 1
    assert "a pass fails on this network: KeyError" in report.declined[0][1]


def test_weights_are_rounded_once() -> None:
    """What is not folded stays bit for bit, and `folded_weights` gives the same."""
    net = randomized(nn.Sequential(conv(3), bn(), nn.ReLU(), conv(3)))
    found, _ = fold(captured(net), EIGHT)
    state = found.program.state_dict
    assert sorted(state) == ["0.bias", "0.weight", "3.bias", "3.weight"]
    assert all(value.dtype == torch.float32 for value in state.values())
    assert torch.equal(state["3.weight"], net.get_parameter("3.weight"))
    scale = net[1].weight.double() / torch.sqrt(net[1].running_var.double() + net[1].eps)
    expected = (net[0].weight.double() * scale.view(-1, 1, 1, 1)).float()
    torch.testing.assert_close(state["0.weight"], expected, rtol=0, atol=0)
    again = folded_weights(captured(net))
    assert all(any(torch.equal(a, b) for b in again) for a in state.values())


def test_passes_have_names_of_their_own() -> None:
    names = [graph_pass.__name__ for graph_pass in GRAPH_PASSES]
    assert len(set(names)) == len(names)
