"""What is found out about a user's network by running it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from deblur_export.errors import DeblurExportError
from deblur_export.models.foreign import adapt
from deblur_export.models.foreign.examine import Given, described, examine, recorded
from tests.models.foreign import networks

USUAL = {
    "channels": 3,
    "scale": 1,
    "output": 0,
    "multiple": 1,
    "minimum": 1,
    "square": False,
    "field": 2,
    "period": 1,
}


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (networks.Plain(), {}),
        (networks.Plain(channels=1), {"channels": 1}),
        (networks.Plain(channels=4), {"channels": 4}),
        (networks.WritesOver(), {}),
        (networks.Strided(), {"multiple": 4, "period": 4, "field": 5}),
        (networks.PadsItself(), {"multiple": 4, "period": 4, "field": 5, "padding": "zeros"}),
        (
            networks.PadsItself("reflect"),
            {"multiple": 4, "period": 4, "field": 5, "padding": "reflect"},
        ),
        (networks.Scales(), {"output": 3, "minimum": 4}),
        (networks.Twice(), {"scale": 2}),
        (networks.SquareOnly(), {"square": True}),
        (networks.AtLeast24(), {"minimum": 21}),
        (networks.Whole(), {"field": None}),
        (networks.DeadGate(), {"field": None}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_found(net: nn.Module, expected: dict[str, Any]) -> None:
    facts = examine(net.eval(), Given()).facts
    found = {name: fact.value for name, fact in facts.items()}
    wanted = USUAL | expected
    assert {name: found[name] for name in wanted} == wanted
    assert facts["range"].by == facts["colour"].by == "assumed"
    assert facts["scale"].by == "found"
    assert facts["padding"].by == ("found" if "padding" in expected else "assumed")


def test_field_covers_what_a_changed_pixel_changes() -> None:
    torch.manual_seed(0)
    net = networks.Strided().eval()
    field = examine(net, Given()).facts["field"].value
    image = torch.rand(1, 3, 64, 64)
    changed = 0
    for pixel in range(24, 40):
        other = image.clone()
        other[:, :, pixel, pixel] += 1
        with torch.no_grad():
            rows = (net(other) != net(image)).any(dim=3).any(dim=1)[0].nonzero().flatten()
        changed = max(changed, pixel - int(rows[0]), int(rows[-1]) - pixel)
    assert field >= changed > 0


def test_what_is_given_stands() -> None:
    given = Given(range=(-1.0, 1.0), colour="BGR", multiple=8, padding="zeros", field="image")
    facts = examine(networks.Tanh().eval(), given).facts
    assert facts["range"].by == facts["multiple"].by == facts["field"].by == "given"
    assert facts["output_range"].value == (-1.0, 1.0)
    assert facts["field"].value is None and facts["multiple"].value == 8


def test_notes() -> None:
    examined = examine(networks.Tanh().eval(), Given())
    assert "ends in tanh" in " ".join(examined.notes)
    assert "--output-index" in " ".join(examine(networks.Scales().eval(), Given()).notes)
    assert not examine(networks.Plain().eval(), Given()).notes


@pytest.mark.parametrize(
    ("net", "given", "message"),
    [
        (networks.Labels(), Given(), r"gives 1x3: no image"),
        (networks.OneSize(), Given(), r"runs at 48x48 and at no other size .* --shape 1x3x48x48"),
        (networks.Plain(), Given(output=2), r"gives 1 tensors"),
        (
            networks.Plain(),
            Given(channels=4),
            r"fails on an image of 1x4x256x256.*networks\.py:\d+",
        ),
        (networks.Twice(), Given(scale=3), r"enlarges by 2"),
        (networks.Plain(), Given(range=(1.0, 1.0)), r"the first must be the smaller"),
    ],
)
def test_refused(net: nn.Module, given: Given, message: str) -> None:
    with pytest.raises(DeblurExportError, match=message) as raised:
        examine(net.eval(), given)
    assert "\n" not in str(raised.value)


def test_a_known_shape_is_enough() -> None:
    examined = examine(networks.OneSize().eval(), Given(), shape=(1, 3, 48, 48))
    assert examined.interface.images.padded(48, 48) == (48, 48)


def test_a_multiple_that_a_known_shape_contradicts_is_refused() -> None:
    with pytest.raises(DeblurExportError, match="--multiple 8: the network does not accept"):
        examine(networks.OneSize().eval(), Given(multiple=8), shape=(1, 3, 48, 48))


def test_facts_describe_the_network_again() -> None:
    examined = examine(networks.Strided().eval(), Given(range=(-1.0, 1.0)))
    assert described(recorded(examined.facts)).interface == examined.interface


def test_the_adapter_maps_images_to_images() -> None:
    """RGB in 0..1 of any size outside; BGR in -1..1 of multiples inside."""
    net = networks.Tanh().eval()
    given = Given(range=(-1.0, 1.0), colour="BGR", multiple=4, padding="zeros")
    model = adapt(net, given=given)
    image = torch.rand(2, 3, 9, 14)
    padded = torch.nn.functional.pad(image, (0, 2, 0, 3))
    with torch.no_grad():
        expected = (net(padded.flip(1) * 2 - 1).flip(1) + 1) / 2
        torch.testing.assert_close(model.net(image), expected[:, :, :9, :14])
    assert not any(a is b for a in net.parameters() for b in model.net.parameters())


def test_random_weights_show_branches_that_are_zero_at_first() -> None:
    nets = [adapt(networks.Whole(), weights="random:3") for _ in range(2)]
    gammas = [float(model.net.get_parameter("net.gamma")) for model in nets]
    assert gammas[0] == gammas[1] != 0
