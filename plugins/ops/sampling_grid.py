"""SamplingGrid: where MotionDeformConv samples, in GridSample's coordinates, once a stage.

    grid[n] = ((2 x + 1) / W - 1, (2 y + 1) / H - 1),   (y, x) = p + g_n + o_n(p)

Only the GridSample body of MotionDeformConv takes the result (as an optional input): runtimes do
not merge the copies of this subgraph by themselves (ONNX Runtime 1.31 merges none of 28). Native
kernels derive positions from the offsets, which is less traffic.
"""

from __future__ import annotations

import onnx_ir as ir

from deblur_export.plugins.function_body import FunctionBody
from deblur_export.plugins.spec import OPSET, OpSpec, Target

TAPS = 9
FLOAT = int(ir.DataType.FLOAT)


def _body(target: Target) -> ir.Function:
    b = FunctionBody(("offset",), (), OPSET[target])
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
    """Normalised coordinate of every tap along one axis, [N, 9, H, W].

    align_corners=0: defined for an axis of one pixel, and the fast path of ONNX Runtime.
    """
    moved = b.Slice(offset, b.ints(component), b.ints(2 * TAPS), b.ints(1), b.ints(2))
    position = b.Add(moved, b.Add(own, b.floats([[[float(tap)]] for tap in taps])))
    doubled = b.Add(b.Mul(position, b.floats(2.0)), b.floats(1.0))
    return b.Sub(b.Div(doubled, b.Cast(size, to=FLOAT)), b.floats(1.0))


SPEC = OpSpec(
    name="SamplingGrid",
    doc="Offsets [N,18,H,W] in pixels to grids [9,N,H,W,2] for GridSample, align_corners=0.",
    torch_op=None,
    inputs={"offset": "tensor(float)"},
    outputs={"grid": "tensor(float)"},
    body=_body,
)
