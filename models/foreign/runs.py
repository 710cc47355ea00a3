"""Runs of a network for the shapes of its outputs, without values where that is possible."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from deblur_export.models.foreign.adapter import tensors_of

Way = Literal["meta", "fake", "real"]
WAYS: tuple[Way, ...] = ("meta", "fake", "real")
POOLED = "over the whole image"  # what a trace has for a pooling of that kind
POOLS = ("mean", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "amax", "adaptive_max_pool2d")
PADS = ("constant_pad_nd", "reflection_pad2d", "replication_pad2d", "pad")


@dataclass(frozen=True)
class Run:
    """What one run gave: the shapes of the output tensors, and the operators in their order, pads
    with their widths."""

    shapes: tuple[tuple[int, ...], ...]
    trace: tuple[str, ...]


class Runs:
    """Runs fresh copies of a network.

    Args:
        net: in eval mode.
        way: "meta" moves it to the meta device, "fake" runs it on fake tensors, which also works
            for tensors that are no parameters or buffers, and "real" computes.
    """

    def __init__(self, net: nn.Module, way: Way) -> None:
        self.way = way
        self.net = copy.deepcopy(net).to("meta") if way == "meta" else net

    def run(self, shape: tuple[int, ...]) -> Run:
        """Run on an image of this shape; raises what the network raises."""
        net = copy.deepcopy(self.net)
        recorder = _Recorder()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if self.way == "meta":
                with torch.device("meta"), recorder:
                    result = net(torch.empty(shape, device="meta"))
            elif self.way == "fake":
                with FakeTensorMode(allow_non_fake_inputs=True), recorder:
                    result = net(torch.empty(shape))
            else:
                generator = torch.Generator().manual_seed(0)
                with recorder:
                    result = net(torch.rand(shape, generator=generator))
        return Run(tuple(tuple(t.shape) for t in tensors_of(result)), tuple(recorder.trace))

    def tried(self, shape: tuple[int, ...]) -> Run | None:
        """The same, or None if the network does not accept it."""
        try:
            return self.run(shape)
        except Exception:  # the user's code: anything can be raised
            return None


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = str(func.overloadpacket.__name__)
        widths = next((a for a in args if isinstance(a, (list, tuple))), "") if name in PADS else ""
        self.trace.append(f"{name}{list(widths)}" if widths else name)
        result = func(*args, **(kwargs or {}))
        if name in POOLS and _is_global(args[0], result):
            self.trace.append(POOLED)
        return result


def _is_global(image: Tensor, result: Any) -> bool:
    """Whether [1, C, H, W] was reduced to one value a channel."""
    pooled = result[0] if isinstance(result, tuple) else result
    sizes = image.shape
    whole = len(sizes) == 4 and sizes[0] == 1 and sizes[2] > 1 and sizes[3] > 1
    return whole and pooled.numel() == sizes[1]


def image(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Noise over a smooth pattern, float32 in 0..1, of shape [N, C, H, W]."""
    n, c, h, w = shape
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 6, h), torch.linspace(0, 5, w), indexing="ij")
    smooth = torch.stack([torch.sin(x + k) * torch.cos(y - k) for k in range(n * c)])
    noise = torch.rand(shape, generator=generator) - 0.5
    return (0.5 + 0.35 * smooth.reshape(shape) + 0.3 * noise).clamp(0, 1)
