"""BilinearCorners: where and with which weight MotionDeformConv samples, computed once a stage.

Only the standard-operator body of MotionDeformConv takes its result (as optional inputs); runtimes
do not find the 28 copies of this subgraph by themselves (ONNX Runtime 1.31 merges none of them).
Native kernels derive positions from the offsets, which is less traffic.
"""

from __future__ import annotations

import onnx_ir as ir

from deblur_export.plugins.function_body import FunctionBody
from deblur_export.plugins.spec import OPSET, OpSpec, Target

TAPS = 9
CORNERS = 4
FLOAT, INT64 = int(ir.DataType.FLOAT), int(ir.DataType.INT64)


def _body(target: Target) -> ir.Function:
    b = FunctionBody(("offset",), (), OPSET[target])
    offset = b.Cast(b.inputs[0], to=FLOAT)
    n, h, w = (b.Squeeze(b.size(offset, axis), b.ints(0)) for axis in (0, 2, 3))
    rows = b.Unsqueeze(_range(b, h), b.ints(1))
    columns = _range(b, w)
    ys = _corners(b, _positions(b, offset, 0, rows, [tap // 3 - 1 for tap in range(TAPS)]), h)
    xs = _corners(b, _positions(b, offset, 1, columns, [tap % 3 - 1 for tap in range(TAPS)]), w)
    base = b.Reshape(b.Mul(b.Range(b.scalar(0), n, b.scalar(1)), b.Mul(h, w)), b.ints(-1, 1, 1, 1))
    indices, coefficients = [], []
    for yi, yw in ys:
        row = b.Add(base, b.Mul(yi, w))
        indices += [b.Add(row, xi) for xi, _ in xs]
        coefficients += [b.Mul(yw, xw) for _, xw in xs]
    index = _tap_major(b, indices, b.ints(TAPS * CORNERS, -1))
    coefficient = _tap_major(b, coefficients, b.ints(TAPS * CORNERS, -1, 1))
    return b.function(SPEC.name, [("index", index), ("coefficient", coefficient)], SPEC.doc)


def _range(b: FunctionBody, size: ir.Value) -> ir.Value:
    return b.Cast(b.Range(b.scalar(0), size, b.scalar(1)), to=FLOAT)  # type: ignore[no-any-return]


def _positions(
    b: FunctionBody, offset: ir.Value, component: int, own: ir.Value, grid: list[int]
) -> ir.Value:
    """Sampling coordinate of every tap along one axis: offset + own position + regular grid."""
    moved = b.Slice(offset, b.ints(component), b.ints(2 * TAPS), b.ints(1), b.ints(2))
    column = b.floats([[[float(step)]] for step in grid])
    return b.Add(moved, b.Add(own, column))  # type: ignore[no-any-return]


def _corners(
    b: FunctionBody, position: ir.Value, size: ir.Value
) -> list[tuple[ir.Value, ir.Value]]:
    """Lower and upper neighbour along one axis: clamped index and weight, 0 outside the image."""
    zero, one = b.floats(0.0), b.floats(1.0)
    last = b.Sub(b.Cast(size, to=FLOAT), one)
    low = b.Floor(position)
    fraction = b.Sub(position, low)
    pairs = []
    for corner, weight in ((low, b.Sub(one, fraction)), (b.Add(low, one), fraction)):
        clamped = b.Clip(corner, zero, last)
        inside = b.Cast(b.Equal(corner, clamped), to=FLOAT)
        pairs.append((b.Cast(clamped, to=INT64), b.Mul(weight, inside)))
    return pairs


def _tap_major(b: FunctionBody, corners: list[ir.Value], shape: ir.Value) -> ir.Value:
    """Four tensors [N, 9, H, W] -> rows 4 * tap + corner over the flattened pixels."""
    axis = b.ints(2)
    stacked = b.Concat(*(b.Unsqueeze(corner, axis) for corner in corners), axis=2)
    return b.Reshape(b.Transpose(stacked, perm=[1, 2, 0, 3, 4]), shape)  # type: ignore[no-any-return]


SPEC = OpSpec(
    name="BilinearCorners",
    doc="Offsets [N,18,H,W] to flat pixel index [36,N*H*W] and bilinear coefficient "
    "[36,N*H*W,1], row 4*tap+corner.",
    torch_op=None,
    inputs={"offset": "T"},
    outputs={"index": "tensor(int64)", "coefficient": "tensor(float)"},
    body=_body,
)
