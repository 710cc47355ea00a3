"""Every network on a GPU, where the custom ops are the CUDA kernels, against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from deblur_export import models
from deblur_export.models.checkpoint import load_model
from deblur_export.models.decisions import decisions, with_choices
from deblur_export.plugins.libraries import cuda
from tests.tolerances import NETWORK_BFLOAT16, NETWORK_FLOAT32

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CALLED = {"m2aenet", "algnet", "aibnet", "saphn"}  # their tiny variants have custom ops


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16-autocast"])
@pytest.mark.parametrize("name", models.NAMES)
def test_equals_float64(name: str, bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user runs it: loaded, moved to the GPU, called under no_grad."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    called, original = [], cuda._call
    monkeypatch.setattr(cuda, "_call", lambda *given: (called.append(given), original(*given)))
    net = load_model(name, "tiny", "random:0").net.to("cuda")
    choices: dict[str, Any] = {}

    def record(path: str) -> Any:
        def hook(module: object, inputs: object, own: Tensor) -> None:
            choices[path] = (own.double() if own.is_floating_point() else own).cpu().numpy()

        return hook

    handles = [part.register_forward_hook(record(k)) for k, part in decisions(net).items()]
    image = torch.rand(2, 3, 37, 53)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        restored: Tensor = net(image.to("cuda"))
    for handle in handles:
        handle.remove()
    assert bool(called) == (name in CALLED)
    with torch.no_grad(), with_choices(net.cpu().double(), choices):
        exact = net(image.double())
    tolerance = NETWORK_BFLOAT16 if bf16 else NETWORK_FLOAT32
    torch.testing.assert_close(restored.cpu().double(), exact, **tolerance)
