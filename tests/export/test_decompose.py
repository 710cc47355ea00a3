"""Programs whose operators are replaced node by node are the same as those traced again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from deblur_export.export.capture import capture
from deblur_export.export.decompose import replaced
from deblur_export.models.image_spec import ImageSpec
from tests.export import traps

TABLE = torch.export.default_decompositions()
SHAPE = (1, 3, 16, 24)


class Squares(traps.Convolution):
    """Operators that the table knows, the last one as the output."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 3, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(super().forward(x))[..., ::2, ::2]
        return torch.square(torch.rsub(x, 1.5))


class WritesView(traps.Convolution):
    """Writes into a part of a tensor that is read later as a whole."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        x[..., 1:].relu_()
        return x


class ReadsView(traps.Convolution):
    """Reads through a view what was written after the view was made."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        flat = x.flatten(2)
        x.relu_()
        return x + flat.view_as(x)


class Again(traps.Convolution):
    """Reads a tensor before and after two operations wrote into it."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        before = x * 2
        x.relu_().add_(before)
        return x - before


def program(net: nn.Module) -> ExportedProgram:
    return capture(net.eval(), ImageSpec(8), SHAPE).program


def operators(one: ExportedProgram) -> list[str]:
    return [str(node.target) for node in one.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    ("network", "by_node"),
    [
        (traps.Convolution, True),
        (Squares, True),
        (traps.InPlace, True),
        (Again, True),
        (WritesView, False),
        (ReadsView, False),
    ],
)
def test_replaced_programs_compute_the_same(network: type[nn.Module], by_node: bool) -> None:
    net = network()
    found = program(net)
    table = {key: rule for key, rule in TABLE.items() if "conv2d" not in str(key)}
    assert replaced(found, table) == by_node
    image = torch.rand(SHAPE)
    with torch.no_grad():
        expected = net(image.clone())
        torch.testing.assert_close(found.module()(image.clone()), expected)
    if by_node:
        ops = operators(found)
        assert not any(node.target in table for node in found.graph.nodes)
        assert not any(op.split(".")[1].endswith("_") for op in ops), ops
        assert all("val" in node.meta for node in found.graph.nodes if node.op == "call_function")
        again = found.run_decompositions({})
        with torch.no_grad():
            torch.testing.assert_close(again.module()(image.clone()), expected)


def test_free_sizes_stay_free() -> None:
    net = Squares().eval()
    found = capture(net, ImageSpec(8), None).program
    assert replaced(found, TABLE)
    for shape in ((1, 3, 8, 8), (3, 3, 40, 16)):
        image = torch.rand(shape)
        with torch.no_grad():
            torch.testing.assert_close(found.module(check_guards=False)(image), net(image))
