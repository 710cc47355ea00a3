"""SelectiveScan in standard ONNX operators: two levels of Scan, or a static graph.

States are laid out [..., S, D]. The Scan form keeps a few sequences of L*D and L*S values and a
state of one megabyte; the static form keeps L*S*D/16 values a state. All arithmetic is float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deblur_export.plugins.function_body import FunctionBody
from deblur_export.plugins.spec import OPSET, Target

FLOAT, BOOL = int(ir.DataType.FLOAT), int(ir.DataType.BOOL)
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
STATE = 2**18  # values of the chunks' states, 1 MB: half of a core's cache or less
CHUNKS = 2**10  # at most, for the scan over chunks is sequential too
RADIX = 16
DOUBLINGS = 16  # RADIX**2 * 2**DOUBLINGS = 16.8 million steps


@dataclass(frozen=True)
class Scan:
    """What both forms compute: y_t = <C_t, h_t>, h_t = exp(delta_t A) h_{t-1} + x_t B_t.

    delta and x = delta*u are [N, L, D], inputs (B) and readout (C) [N, L, S], rates (A) [S, D].
    """

    delta: ir.Value
    x: ir.Value
    inputs: ir.Value
    readout: ir.Value
    rates: ir.Value


def body(target: Target, absent: frozenset[str] = frozenset()) -> ir.Function:
    """The function for nodes that leave out the optional inputs `absent`."""
    b = FunctionBody(NAMES, ("delta_softplus",), OPSET[target])
    given = zip(NAMES, b.inputs, strict=True)
    v = {name: b.Cast(value, to=FLOAT) for name, value in given if name not in absent}
    delta, column = v["delta"], b.ints(1)
    if "delta_bias" in v:
        delta = b.Add(delta, b.Unsqueeze(v["delta_bias"], column))
    delta = _softplus_if_asked(b, delta)
    scan = Scan(
        delta=b.Transpose(delta, perm=[0, 2, 1]),
        x=b.Transpose(b.Mul(delta, v["u"]), perm=[0, 2, 1]),
        inputs=b.Transpose(v["B"], perm=[0, 2, 1]),
        readout=b.Transpose(v["C"], perm=[0, 2, 1]),
        rates=b.Transpose(v["A"], perm=[1, 0]),
    )
    y = _static(b, scan) if target in ("openvino", "rtx") else _two_levels(b, scan)
    y = b.Add(b.Transpose(y, perm=[0, 2, 1]), b.Mul(v["u"], b.Unsqueeze(v["D"], column)))
    if "z" in v:
        y = b.Mul(y, b.Mul(v["z"], b.Sigmoid(v["z"])))
    doc = "Mamba's selective scan; see plugins/ops/selective_scan.py."
    return b.function("SelectiveScan", [("y", b.CastLike(y, b.inputs[0]))], doc)


def _softplus_if_asked(b: FunctionBody, delta: ir.Value) -> ir.Value:
    """Not an If: a Where on a constant needs no subgraph. exp cannot overflow: softplus(x) is above
    x below the bound, and x itself beyond."""
    soft = b.Max(delta, b.Softplus(b.Min(delta, b.floats(20.0))))
    asked = b.Constant(value_int=b.reference("delta_softplus", "value_int"))
    return b.Where(b.Cast(asked, to=BOOL), soft, delta)


def _advance(
    b: FunctionBody, h: ir.Value, delta: ir.Value, x: ir.Value, b_t: ir.Value, rates: ir.Value
) -> ir.Value:
    """One step: h [.., S, D], delta and x [.., 1, D], b_t [.., S, 1]."""
    return b.Add(b.Mul(h, b.Exp(b.Mul(delta, rates))), b.Mul(b_t, x))


# Two levels: K chunks of T steps, in one Scan for the chunks' end states, a short one that carries
# the states from chunk to chunk, and one that reads out.


def _two_levels(b: FunctionBody, scan: Scan) -> ir.Value:
    one, zero = b.ints(1), b.ints(0)
    n, length, d = (b.size(scan.delta, axis) for axis in range(3))
    s = b.size(scan.rates, 0)
    fitting = b.Div(b.ints(STATE), b.Mul(n, b.Mul(s, d)))
    chunks = b.Max(b.Min(b.Min(fitting, b.ints(CHUNKS)), length), one)
    steps = b.Div(b.Add(length, b.Sub(chunks, one)), chunks)
    pads = b.Concat(b.ints(0, 0, 0, 0), b.Sub(b.Mul(chunks, steps), length), zero, axis=0)
    states = b.Mul(chunks, n)

    def time_major(sequence: ir.Value, *tail: ir.Value) -> ir.Value:
        """[N, L, E] -> [T, K*N, *tail]; zeros at the end keep the state."""
        shape = b.Concat(zero, chunks, steps, b.ints(-1), axis=0)
        cut = b.Transpose(b.Reshape(b.Pad(sequence, pads), shape), perm=[2, 1, 0, 3])
        return b.Reshape(cut, b.Concat(steps, states, *tail, axis=0))

    delta, x = time_major(scan.delta, one, d), time_major(scan.x, one, d)
    inputs, readout = time_major(scan.inputs, s, one), time_major(scan.readout, one, s)
    shape = b.Concat(chunks, n, s, d, axis=0)
    ends = _end_states(b, _zeros(b, states, s, d), delta, x, inputs, scan.rates)
    decay = b.Exp(b.Mul(b.ReduceSum(delta, zero, keepdims=0), scan.rates))
    starts = _carry(b, _zeros(b, n, s, d), b.Reshape(decay, shape), b.Reshape(ends, shape))
    starts = b.Reshape(starts, b.Concat(states, s, d, axis=0))
    y = _read_out(b, starts, delta, x, inputs, readout, scan.rates)
    y = b.Reshape(y, b.Concat(steps, chunks, n, d, axis=0))
    y = b.Reshape(b.Transpose(y, perm=[2, 1, 0, 3]), b.Concat(n, b.ints(-1), d, axis=0))
    return b.Slice(y, zero, length, one)


def _zeros(b: FunctionBody, *sizes: ir.Value) -> ir.Value:
    shape = b.Concat(*sizes, axis=0)
    return b.ConstantOfShape(shape, value=ir.tensor(np.zeros(1, np.float32)))


def _end_states(
    b: FunctionBody,
    state: ir.Value,
    delta: ir.Value,
    x: ir.Value,
    inputs: ir.Value,
    rates: ir.Value,
) -> ir.Value:
    step = b.branch("end", ("h", "delta", "x", "b"))
    h, delta_t, x_t, b_t = step.inputs
    graph = step.graph(_advance(step, h, delta_t, x_t, b_t, rates))
    return b.Scan(state, delta, x, inputs, body=graph, num_scan_inputs=3)


def _carry(b: FunctionBody, state: ir.Value, decay: ir.Value, ends: ir.Value) -> ir.Value:
    """The state in which each chunk starts."""
    step = b.branch("carry", ("h", "decay", "end"))
    h, a, end = step.inputs
    graph = step.graph(step.Add(step.Mul(h, a), end), step.Identity(h))
    _, starts = b.outputs("Scan", 2, state, decay, ends, body=graph, num_scan_inputs=2)
    return starts


def _read_out(
    b: FunctionBody,
    state: ir.Value,
    delta: ir.Value,
    x: ir.Value,
    inputs: ir.Value,
    readout: ir.Value,
    rates: ir.Value,
) -> ir.Value:
    step = b.branch("read", ("h", "delta", "x", "b", "c"))
    h, delta_t, x_t, b_t, c_t = step.inputs
    h = _advance(step, h, delta_t, x_t, b_t, rates)
    graph = step.graph(h, step.MatMul(c_t, h))
    sequences = (delta, x, inputs, readout)
    _, y = b.outputs("Scan", 2, state, *sequences, body=graph, num_scan_inputs=4)
    return y


# Static: sixteen steps make a chunk, sixteen chunks a block, both unrolled over their sixteen
# members and computed for all chunks at once; then log-steps over the blocks (Hillis and Steele).
# No loop, no If. (With levels of sixteen all the way up, time and size of what TensorRT for RTX 1.7
# builds grow exponentially with the levels.)


def _static(b: FunctionBody, scan: Scan) -> ir.Value:
    def members(sequence: ir.Value, axis: int) -> list[ir.Value]:
        return _members(b, b.Unsqueeze(sequence, b.ints(axis)))

    delta, x = members(scan.delta, 2), members(scan.x, 2)
    inputs, readout = members(scan.inputs, 3), members(scan.readout, 3)
    # Not as B*x as below: a shared product would live from here to there, all sixteen of them.
    total, ends = delta[-1], b.Mul(inputs[-1], x[-1])
    for step in reversed(range(RADIX - 1)):
        decayed = b.Mul(x[step], b.Exp(b.Mul(total, scan.rates)))
        ends = b.Add(ends, b.Mul(inputs[step], decayed))
        total = b.Add(total, delta[step])

    h, outputs = _starts_of_chunks(b, total, ends, scan.rates), []
    for step in range(RADIX):
        h = _advance(b, h, delta[step], x[step], inputs[step], scan.rates)
        outputs.append(b.ReduceSum(b.Mul(readout[step], h), b.ints(2), keepdims=1))
    y = b.Reshape(b.Concat(*outputs, axis=2), b.Concat(b.ints(0, -1), b.size(h, 3), axis=0))
    return b.Slice(y, b.ints(0), b.size(scan.delta, 1), b.ints(1))


def _starts_of_chunks(
    b: FunctionBody, delta: ir.Value, arriving: ir.Value, rates: ir.Value
) -> ir.Value:
    """The state [N, M, S, D] in which each of M chunks starts.

    `delta` [N, M, 1, D] sums over a chunk; `arriving` is its end state if it starts from zero.
    """
    steps, states = _members(b, delta), _members(b, arriving)
    total, ends = steps[-1], states[-1]
    for step, state in zip(reversed(steps[:-1]), reversed(states[:-1]), strict=True):
        ends = b.Add(ends, b.Mul(state, b.Exp(b.Mul(total, rates))))
        total = b.Add(total, step)
    starts = [_starts_of_blocks(b, total, ends, rates)]
    for step, state in zip(steps[:-1], states[:-1], strict=True):
        starts.append(b.Add(b.Mul(starts[-1], b.Exp(b.Mul(step, rates))), state))
    shape = b.Concat(b.ints(0, -1), b.Shape(arriving, start=2, end=4), axis=0)
    joined = b.Reshape(b.Concat(*starts, axis=2), shape)
    return b.Slice(joined, b.ints(0), b.size(arriving, 1), b.ints(1))


def _starts_of_blocks(
    b: FunctionBody, total: ir.Value, ends: ir.Value, rates: ir.Value
) -> ir.Value:
    """The same for blocks, by log-steps."""
    count = b.size(ends, 1)

    def later(x: ir.Value, places: int) -> ir.Value:
        moved = b.Pad(x, b.ints(0, places, 0, 0, 0, 0, 0, 0))
        return b.Slice(moved, b.ints(0), count, b.ints(1))

    for doubling in range(DOUBLINGS):
        ends = b.Add(ends, b.Mul(later(ends, 2**doubling), b.Exp(b.Mul(total, rates))))
        total = b.Add(total, later(total, 2**doubling))
    return later(ends, 1)


def _members(b: FunctionBody, x: ir.Value) -> list[ir.Value]:
    """[N, M, R, E] -> sixteen [N, ceil(M/16), R, E]: the first of each chunk, the second, ...

    Zeros at the end keep a state: they are steps of size zero.
    """
    count, radix = b.size(x, 1), b.ints(RADIX)
    up = b.Mul(b.Div(b.Add(count, b.ints(RADIX - 1)), radix), radix)
    filled = b.Pad(x, b.Concat(b.ints(0, 0, 0, 0, 0), b.Sub(up, count), b.ints(0, 0), axis=0))
    shape = b.Concat(b.ints(0, -1), b.Mul(b.size(x, 2), radix), b.size(x, 3), axis=0)
    return list(b.split(b.Reshape(filled, shape), RADIX, axis=2))
