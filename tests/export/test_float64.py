"""Networks whose code asks for float32 are proved and compared in float64 all the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deblur_export.export.float64 import NotFloat64Error, float64_copy, run_float64, widened
from deblur_export.export.reparam.prepare import prepare, probe_size
from deblur_export.models.image_spec import ImageSpec
from tests.export import traps

IMAGE = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained(network: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    net = network()
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return net.eval()


def test_what_asks_for_float32_gets_float64() -> None:
    net = trained(traps.Floats)
    exact = run_float64(float64_copy(net), IMAGE.double())
    assert exact.dtype == torch.float64
    weight = net.last.weight.double() / 3  # the constant 1/3 is exact to 16 digits too
    inner = float64_copy(net.norm)(float64_copy(net.conv)(IMAGE.double()))
    expected = nn.functional.conv2d(inner, weight, net.last.bias.double())
    torch.testing.assert_close(exact, expected, rtol=1e-14, atol=1e-14)


def test_the_default_type_comes_back_after_an_error() -> None:
    with pytest.raises(KeyError), widened():
        assert torch.zeros(1).dtype == torch.float64
        raise KeyError
    assert torch.zeros(1).dtype == torch.float32


def test_folds_of_a_network_that_asks_for_float32_are_proved() -> None:
    model = traps.loaded(trained(traps.Floats), ImageSpec(1))
    folded, reports = prepare(model, reparam=True)
    (report,) = (report for report in reports if report.changed)
    assert report.name == "fold_batch_norm"
    assert report.max_error < 1e-14
    with torch.no_grad():
        torch.testing.assert_close(folded(IMAGE), model.net(IMAGE))
    assert next(folded.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (traps.Halves, "it rounds inside: aten._to_copy.default gives bfloat16"),
        (traps.AtNumpy, "it does not run in float64: expected scalar type Double"),
    ],
)
def test_without_float64_nothing_is_folded_and_the_reason_is_told(
    network: type[nn.Module], reason: str
) -> None:
    net, told = trained(network), list[str]()
    with pytest.raises(NotFloat64Error, match=reason):
        run_float64(float64_copy(net), IMAGE.double())
    prepared, reports = prepare(traps.loaded(net, ImageSpec(1)), True, told.append)
    assert prepared is net and reports == []
    assert "no fold can be proved exact" in told[-1]


def test_a_network_without_batches_is_proved_on_one_image() -> None:
    _, reports = prepare(traps.loaded(trained(traps.OneAtATime), ImageSpec(8)), True)
    assert any(report.changed for report in reports)


def test_a_network_without_weights_is_left_as_it_is() -> None:
    net = nn.Sequential(nn.AvgPool2d(3, 1, 1))
    _, reports = prepare(traps.loaded(net, ImageSpec(1)), True)
    assert not any(report.changed for report in reports)


@pytest.mark.parametrize("multiple", [1, 2, 3, 4, 7, 8, 16, 64])
def test_probe_is_padded_on_both_sides(multiple: int) -> None:
    height, width = probe_size(ImageSpec(multiple))
    assert height != width and min(height, width) >= 24
    assert multiple < 3 or (height % multiple and width % multiple)
