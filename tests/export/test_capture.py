"""A captured program is the network, as free as its code allows, or it is refused."""

from __future__ import annotations

import linecache
import re

import pytest
import torch
from torch import nn

from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export import capture as module
from deblur_export.export.capture import capture
from deblur_export.models.image_spec import ImageSpec
from tests.export import traps

FREE = ("batch", "height", "width")
EIGHT = ImageSpec(8)


@pytest.mark.parametrize(
    ("network", "free", "reason", "code"),
    [
        (traps.Convolution, FREE, None, None),
        (
            traps.WindowReverse,
            FREE[1:],
            "batch cannot be free: the code needs max(1, (3*b",
            "= int(",
        ),
        (traps.OtherForOne, FREE[1:], "batch cannot be free: the code needs batch != 1", "== 1"),
        (traps.IntHalf, (), "for some sizes only: math.trunc(height / 2) == 8", "half = int("),
    ],
)
def test_ladder(
    network: type[nn.Module], free: tuple[str, ...], reason: str | None, code: str | None
) -> None:
    found = capture(network().eval(), EIGHT, None)
    assert found.free == free
    assert (not found.notes) == (reason is None)
    if reason is not None:
        assert reason in found.notes[-1]
    if code is not None:
        place = re.search(r"at (\S*traps\.py):(\d+)$", found.notes[-1])
        assert place is not None
        assert code in linecache.getline(place[1], int(place[2]))


def test_captured_program_is_the_network_at_free_sizes() -> None:
    net = traps.WindowReverse().eval()
    program = capture(net, EIGHT, None).program.module()
    image = torch.rand(1, 3, 40, 8)
    with torch.no_grad():
        torch.testing.assert_close(program(image), net(image))


def test_square_network_at_a_fixed_square() -> None:
    found = capture(traps.Square().eval(), EIGHT, (1, 3, 32, 32))
    assert found.free == () and found.notes == ()


def test_square_network_is_shown_squares_only() -> None:
    found = capture(traps.Square().eval(), ImageSpec(8, square=True), None)
    assert found.shape[2] == found.shape[3]
    assert (not found.free) == bool(found.notes)


def test_sizes_below_the_minimum_are_not_tried() -> None:
    found = capture(traps.TwentyPixels().eval(), ImageSpec(8, minimum=20), None)
    assert found.free == FREE and found.shape[2:] == (32, 40)


def test_a_network_that_decides_by_values_is_refused_with_the_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(DeblurExportError, match=r"decides by values of the image.*traps\.py:\d+"):
        capture(traps.Decides().eval(), EIGHT, None)
    assert capfd.readouterr().err == "", "torch would print the graph that it has so far"


@pytest.mark.parametrize("multiple", [1, 2, 3])
def test_any_size_multiple(multiple: int) -> None:
    """The smallest sizes are large enough for a padding by reflection."""
    found = capture(traps.Reflects().eval(), ImageSpec(multiple, minimum=4), None)
    assert found.free == FREE, found.notes


def test_a_program_that_computes_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the last step there is nothing left to give up: a failed check, exit code 1."""
    net = traps.Convolution().eval()
    other = module._export(traps.Convolution().eval(), (1, 3, 16, 16), None)
    monkeypatch.setattr(module, "_export", lambda *_: other)
    with pytest.raises(CheckFailedError, match="differs from the network by"):
        capture(net, EIGHT, (1, 3, 16, 16))


def test_the_network_is_not_changed() -> None:
    net = traps.Convolution().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    capture(net, EIGHT, None)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.training
