"""Sampling positions of MotionDeformConv in GridSample's coordinates, once per offset field.

    grid[n] = ((2 x + 1) / W - 1, (2 y + 1) / H - 1),   (y, x) = p + g_n + o_n(p),   n = 0..8

with g_n the regular 3x3 grid and o_n(p) the offset of tap n at pixel p. The coordinates are those
of align_corners = 0, which an axis of one pixel does not break and for which ONNX Runtime has a
fast path.

A graph pass inserts the op for layers that share their offsets, and only the GridSample body of
MotionDeformConv reads the result (as an optional input): runtimes do not merge the copies of this
subgraph by themselves (ONNX Runtime 1.31 merges none of 28). Native kernels derive positions from
the offsets, which is less memory traffic. Everything is float32 in every file.
"""

from __future__ import annotations

import onnx_ir as ir

from deblur_export.plugins.function_body import FunctionBody
from deblur_export.plugins.parameters import POSITIONS, NativeFunction, TensorSpec
from deblur_export.plugins.spec import OpSpec
from deblur_export.target import Target

TAPS = 9
FLOAT = int(ir.DataType.FLOAT)


def _body(target: Target) -> ir.Function:
    b = FunctionBody(("offset",), (), target.opset)
    (offset,) = b.inputs
    h, w = b.size(offset, 2), b.size(offset, 3)
    rows = b.Unsqueeze(_range(b, h), b.ints(1))
    y = _axis(b, offset, 0, rows, [tap // 3 - 1 for tap in range(TAPS)], h)
    x = _axis(b, offset, 1, _range(b, w), [tap % 3 - 1 for tap in range(TAPS)], w)
    last = b.ints(4)
    grid = b.Concat(b.Unsqueeze(x, last), b.Unsqueeze(y, last), axis=4)
    grid = b.Transpose(grid, perm=[1, 0, 2, 3, 4])
    return b.function(SPEC.name, [("grid", grid)], SPEC.doc)


def _range(b: FunctionBody, size: ir.Value) -> ir.Value:
    count = b.Squeeze(size, b.ints(0))
    return b.Cast(b.Range(b.scalar(0), count, b.scalar(1)), to=FLOAT)


def _axis(
    b: FunctionBody,
    offset: ir.Value,
    component: int,
    own: ir.Value,
    taps: list[int],
    size: ir.Value,
) -> ir.Value:
    """Normalized coordinate of every tap along one axis, [N, 9, H, W]."""
    moved = b.Slice(offset, b.ints(component), b.ints(2 * TAPS), b.ints(1), b.ints(2))
    position = b.Add(moved, b.Add(own, b.floats([[[float(tap)]] for tap in taps])))
    doubled = b.Add(b.Mul(position, b.floats(2.0)), b.floats(1.0))
    return b.Sub(b.Div(doubled, b.Cast(size, to=FLOAT)), b.floats(1.0))


SPEC = OpSpec(
    name="SamplingGrid",
    doc="Offsets [N,18,H,W] in pixels to grids [9,N,H,W,2] for GridSample, align_corners=0.",
    about=__doc__,
    source="ONNX GridSample, PyTorch grid_sample (the coordinates)",
    torch_op=None,
    inputs={
        "offset": TensorSpec(
            "tensor(float)",
            "N, 18, H, W",
            "displacement of each tap in pixels, (dy, dx) interleaved",
            fp32=POSITIONS,
        ),
    },
    outputs={
        "grid": TensorSpec("tensor(float)", "9, N, H, W, 2", "(x, y) of each tap, -1..1 inside")
    },
    body=_body,
    bodies={"portable, ort, openvino, rtx": "arithmetic on Range and the offsets"},
    cpu=NativeFunction("deblur_sampling_grid", "offset grid n h w threads"),
    cuda=NativeFunction("deblur_cuda_sampling_grid", "offset grid n h w stream"),
)

SPECS = (SPEC,)
