"""What bench/kernels.py compares the CUDA kernels with; each baseline where it can be had.

The scan of mamba-ssm (Gu and Dao 2023) runs one block per channel: chunk after chunk, state after
state, a block-wide scan for each. `triton_scan` is that algorithm written anew in Triton, for
machines without mamba-ssm.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

Call = Callable[[], Tensor]
MAMBA = "mamba-ssm"
# Our Triton form of mamba-ssm's algorithm issues 1.7 times the instructions of its CUDA kernel.
TRITON_SCAN = "Triton form of mamba-ssm's algorithm (1.7 times its instructions)"
TORCHVISION = "torchvision"
CHUNK = 2048  # steps, as in mamba-ssm

if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _join(a0, b0, a1, b1):  # type: ignore[no-untyped-def]
        return a0 * a1, a1 * b0 + b1

    @triton.jit  # type: ignore[untyped-decorator]
    def _scan_kernel(  # type: ignore[no-untyped-def]
        u,
        delta,
        rates,
        enter,
        read,
        skip,
        gate,
        y,
        d,
        length,
        states: tl.constexpr,
        steps: tl.constexpr,
    ):
        program = tl.program_id(0).to(tl.int64)
        channel, image, row = program % d, program // d, program * length
        t, s = tl.arange(0, steps), tl.arange(0, states)
        state = tl.zeros([states], tl.float32)
        weight = tl.load(skip + channel)
        for first in range(0, length, steps):
            at = first + t
            inside = at < length
            step = tl.load(delta + row + at, inside, 0.0)
            step = tl.where(step > 20.0, step, tl.log(1.0 + tl.exp(step)))
            step = tl.where(inside, step, 0.0)
            value = tl.load(u + row + at, inside, 0.0).to(tl.float32)
            total = weight * value
            for i in range(states):
                rate = tl.load(rates + channel * states + i) * 1.4426950408889634
                line = (image * states + i) * length
                b = tl.load(enter + line + at, inside, 0.0).to(tl.float32)
                c = tl.load(read + line + at, inside, 0.0).to(tl.float32)
                decay, entered = tl.associative_scan(
                    (tl.exp2(step * rate), step * value * b), 0, _join
                )
                h = decay * tl.sum(tl.where(s == i, state, 0.0)) + entered
                total += h * c
                state = tl.where(s == i, tl.sum(tl.where(t == steps - 1, h, 0.0)), state)
            z = tl.load(gate + row + at, inside, 0.0).to(tl.float32)
            total *= z / (1.0 + tl.exp(-z))
            tl.store(y + row + at, total.to(y.dtype.element_ty), inside)


def triton_scan(*tensors: Tensor) -> Tensor:
    """SelectiveScan with gate and softplus; `tensors` are u, delta, A, B, C, D and z, dense."""
    u, rates = tensors[0], tensors[2]
    n, d, length = u.shape
    y = torch.empty_like(u)
    chunk = min(CHUNK, 1 << (length - 1).bit_length())
    _scan_kernel[(n * d,)](*tensors, y, d, length, states=rates.shape[1], steps=chunk)
    return y


def imported(name: str) -> Any:
    """A module, or None where it is missing or does not load."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError):
        return None


def scan_baselines(*tensors: Tensor) -> dict[str, Call]:
    """Of SelectiveScan; `tensors` are u, delta, A, B, C, D and z, S a power of two."""
    baselines: dict[str, Call] = {}
    mamba = imported("mamba_ssm.ops.selective_scan_interface")
    if mamba is not None:
        u, delta, rates, enter, read, skip, gate = tensors
        baselines[MAMBA] = lambda: mamba.selective_scan_fn(
            u, delta.to(u.dtype), rates, enter, read, skip, gate, None, True
        )
    if triton is not None:
        baselines[TRITON_SCAN] = lambda: triton_scan(*tensors)
    return baselines


def sampled(x: Tensor, offset: Tensor, kernel: int, tap: int) -> Tensor:
    """x [N, C, H, W] at the positions of one tap, by grid_sample."""
    h, w = x.shape[2:]
    rows = torch.arange(h, device=x.device).view(h, 1) + tap // kernel - kernel // 2
    columns = torch.arange(w, device=x.device) + tap % kernel - kernel // 2
    y, x_ = offset[:, 2 * tap] + rows, offset[:, 2 * tap + 1] + columns
    grid = torch.stack([(2 * x_ + 1) / w - 1, (2 * y + 1) / h - 1], dim=-1)
    return F.grid_sample(x, grid.to(x.dtype), align_corners=False)


def torch_motion(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, gate: int) -> Tensor:
    """MotionDeformConv in plain torch: nine samples, weighed."""
    y = bias.view(1, -1, 1, 1)
    for tap in range(9):
        y = torch.addcmul(y, sampled(x, offset, 3, tap), weight.view(1, -1, 9, 1, 1)[:, :, tap])
    return gated(y) if gate else y


def gated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return first * second


def motion_baselines(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, gate: int
) -> dict[str, Call]:
    """Of MotionDeformConv."""
    baselines: dict[str, Call] = {
        "torch, 9 grid_sample": lambda: torch_motion(x, offset, weight, bias, gate)
    }
    vision = imported("torchvision.ops")
    if vision is not None:
        moved = offset.to(x.dtype)

        def deform() -> Tensor:
            y: Tensor = vision.deform_conv2d(x, moved, weight, bias, padding=1)
            return gated(y) if gate else y

        baselines[TORCHVISION] = deform
    return baselines


def torch_deform(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """DeformConv2d in plain torch: a sample and a 1x1 convolution a tap."""
    y = bias.view(1, -1, 1, 1)
    kernel = weight.shape[3]
    for tap in range(kernel * kernel):
        i, j = divmod(tap, kernel)
        taken = sampled(x, offset, kernel, tap) * mask[:, tap : tap + 1]
        y = y + F.conv2d(taken, weight[:, :, i : i + 1, j : j + 1])
    return y


def deform_baselines(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor
) -> dict[str, Call]:
    """Of DeformConv2d."""
    baselines: dict[str, Call] = {
        "torch, grid_sample a tap": lambda: torch_deform(x, offset, weight, bias, mask)
    }
    vision = imported("torchvision.ops")
    if vision is not None:
        moved, pad = offset.to(x.dtype), weight.shape[3] // 2
        baselines[TORCHVISION] = lambda: vision.deform_conv2d(
            x, moved, weight, bias, padding=pad, mask=mask
        )
    return baselines


def dense_pruned(
    x: Tensor, mask: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
) -> Tensor:
    """PrunedConv as the dense masked network computes it."""
    hidden = F.conv2d(F.conv2d(x, weight1, bias1), weight2, bias2, padding=1, groups=len(weight2))
    return torch.where(mask > 0.5, gated(hidden), x * x)


def pruned_baselines(x: Tensor, mask: Tensor, *weights: Tensor) -> dict[str, Call]:
    """Of PrunedConv: the dense form in both layouts; cuDNN prefers one or the other."""
    last = x.to(memory_format=torch.channels_last)
    return {
        "torch, dense": lambda: dense_pruned(x, mask, *weights),
        "torch, dense, NHWC": lambda: dense_pruned(last, mask, *weights),
    }


def cumulative_mean(x: Tensor, kernel: int) -> Tensor:
    """LocalMean as TLC has it: differences of cumulative sums."""
    height, width = x.shape[2:]
    down, across = min(kernel, height), min(kernel, width)
    table = F.pad(x.cumsum(3).cumsum(2), (1, 0, 1, 0))
    above, below = table[:, :, :-down], table[:, :, down:]
    total = below[..., across:] - below[..., :-across] - above[..., across:] + above[..., :-across]
    rows, columns = height - total.shape[2], width - total.shape[3]
    border = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return F.pad(total / (down * across), border, mode="replicate")


def grouped_filter(x: Tensor, weight: Tensor, kernel: int) -> Tensor:
    """DynamicFilter as a grouped convolution of all images at once."""
    n, c, h, _ = x.shape
    margin = kernel // 2
    mirrored = F.pad(x, (margin,) * 4, mode="reflect").reshape(1, n * c, h + 2 * margin, -1)
    return F.conv2d(mirrored, weight.view(n * c, 1, kernel, kernel), groups=n * c).view_as(x)


def sorted_top(scores: Tensor, count: int) -> Tensor:
    """TopPixels by two sorts."""
    order = scores.flatten(1).sort(dim=1, descending=True, stable=True).indices
    return order[:, :count].sort(dim=1).values


def on_cpu(op: str, *tensors: Tensor, **attributes: int) -> Tensor:
    """An op of ours on the CPU, for dry runs: its definition in PyTorch."""
    from deblur_export.plugins.ops import OPS
    from deblur_export.plugins.ops.local_mean import local_mean

    if op.startswith("LocalMean"):
        mean: Tensor = local_mean(tensors[0], kernel=int(op.removeprefix("LocalMean")))
        return mean
    spec = OPS[op]
    shapes = {name: x.shape for name, x in zip(spec.inputs, tensors, strict=False)}
    values = spec.bind(shapes, attributes)
    y: Tensor = spec.torch_op(*tensors, **{name: values[name] for name in spec.attributes})
    return y
