"""SelectiveScan in standard ONNX operators: two levels of Scan, or a static graph.

States are stored as [..., S, D]. The Scan form keeps a few sequences of L*D and L*S values and
chunk states of one megabyte; the static form keeps L*S*D/16 values per tensor of states. All
arithmetic is float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deblur_export.plugins.function_body import FunctionBody
from deblur_export.target import Target

FLOAT, BOOL = int(ir.DataType.FLOAT), int(ir.DataType.BOOL)
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
STATE = 2**18  # values of all chunk states, 1 MB: half of a core's cache or less
CHUNKS = 2**10  # at most this many, because the scan over the chunks is sequential too
RADIX = 16
DOUBLINGS = 16  # RADIX**2 * 2**DOUBLINGS = 16.8 million steps


@dataclass(frozen=True)
class Scan:
    """What both forms compute: y_t = <C_t, h_t>, h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t.

    delta and delta_u, which is delta * u, are [N, L, D], B and C [N, L, S], A [S, D].
    """

    delta: ir.Value
    delta_u: ir.Value
    A: ir.Value
    B: ir.Value
    C: ir.Value


def body(target: Target, absent: frozenset[str] = frozenset()) -> ir.Function:
    """The function for nodes that leave out the optional inputs `absent` ("z", "delta_bias")."""
    b = FunctionBody(NAMES, ("delta_softplus",), target.opset)
    given = zip(NAMES, b.inputs, strict=True)
    v = {name: b.Cast(value, to=FLOAT) for name, value in given if name not in absent}
    delta, column = v["delta"], b.ints(1)
    if "delta_bias" in v:
        delta = b.Add(delta, b.Unsqueeze(v["delta_bias"], column))
    delta = _softplus_if_asked(b, delta)
    scan = Scan(
        delta=b.Transpose(delta, perm=[0, 2, 1]),
        delta_u=b.Transpose(b.Mul(delta, v["u"]), perm=[0, 2, 1]),
        B=b.Transpose(v["B"], perm=[0, 2, 1]),
        C=b.Transpose(v["C"], perm=[0, 2, 1]),
        A=b.Transpose(v["A"], perm=[1, 0]),
    )
    y = _two_levels(b, scan) if target.loops else _static(b, scan)
    y = b.Add(b.Transpose(y, perm=[0, 2, 1]), b.Mul(v["u"], b.Unsqueeze(v["D"], column)))
    if "z" in v:
        y = b.Mul(y, b.Mul(v["z"], b.Sigmoid(v["z"])))
    doc = "Mamba's selective scan; see plugins/ops/selective_scan.py."
    return b.function("SelectiveScan", [("y", b.CastLike(y, b.inputs[0]))], doc)


def _softplus_if_asked(b: FunctionBody, delta: ir.Value) -> ir.Value:
    """softplus(delta) where the attribute says so.

    A Where on a constant instead of an If, for it needs no subgraph. No exponential overflows:
    above 20, softplus(x) is x in float32, and below it is larger than x.
    """
    soft = b.Max(delta, b.Softplus(b.Min(delta, b.floats(20.0))))
    asked = b.Constant(value_int=b.reference("delta_softplus", "value_int"))
    return b.Where(b.Cast(asked, to=BOOL), soft, delta)


def _advance(
    b: FunctionBody, h: ir.Value, delta: ir.Value, delta_u: ir.Value, B: ir.Value, A: ir.Value
) -> ir.Value:
    """One step: h [.., S, D], delta and delta_u [.., 1, D], B [.., S, 1], A [S, D]."""
    return b.Add(b.Mul(h, b.Exp(b.Mul(delta, A))), b.Mul(B, delta_u))


# Two levels: K chunks of T steps. One Scan computes the state at the end of each chunk from a state
# of zero, a short one carries the states from chunk to chunk, and a third one computes the outputs
# from the right states.


def _two_levels(b: FunctionBody, scan: Scan) -> ir.Value:
    one, zero = b.ints(1), b.ints(0)
    n, length, d = (b.size(scan.delta, axis) for axis in range(3))
    s = b.size(scan.A, 0)
    fitting = b.Div(b.ints(STATE), b.Mul(n, b.Mul(s, d)))
    chunks = b.Max(b.Min(b.Min(fitting, b.ints(CHUNKS)), length), one)
    steps = b.Div(b.Add(length, b.Sub(chunks, one)), chunks)
    pads = b.Concat(b.ints(0, 0, 0, 0), b.Sub(b.Mul(chunks, steps), length), zero, axis=0)
    states = b.Mul(chunks, n)

    def time_major(sequence: ir.Value, *tail: ir.Value) -> ir.Value:
        """[N, L, E] -> [T, K*N, *tail]; the zeros that are appended leave a state as it is."""
        shape = b.Concat(zero, chunks, steps, b.ints(-1), axis=0)
        cut = b.Transpose(b.Reshape(b.Pad(sequence, pads), shape), perm=[2, 1, 0, 3])
        return b.Reshape(cut, b.Concat(steps, states, *tail, axis=0))

    delta, delta_u = time_major(scan.delta, one, d), time_major(scan.delta_u, one, d)
    B, C = time_major(scan.B, s, one), time_major(scan.C, one, s)
    shape = b.Concat(chunks, n, s, d, axis=0)
    ends = _end_states(b, _zeros(b, states, s, d), delta, delta_u, B, scan.A)
    decay = b.Exp(b.Mul(b.ReduceSum(delta, zero, keepdims=0), scan.A))
    starts = _carry(b, _zeros(b, n, s, d), b.Reshape(decay, shape), b.Reshape(ends, shape))
    starts = b.Reshape(starts, b.Concat(states, s, d, axis=0))
    y = _outputs(b, starts, delta, delta_u, B, C, scan.A)
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
    delta_u: ir.Value,
    B: ir.Value,
    A: ir.Value,
) -> ir.Value:
    """The state [K*N, S, D] at the end of each chunk that starts in `state`."""
    step = b.branch("end", ("h", "delta", "x", "b"))
    h, delta_t, delta_u_t, B_t = step.inputs
    graph = step.graph(_advance(step, h, delta_t, delta_u_t, B_t, A), rank=3)
    return b.Scan(state, delta, delta_u, B, body=graph, num_scan_inputs=3)


def _carry(b: FunctionBody, state: ir.Value, decay: ir.Value, ends: ir.Value) -> ir.Value:
    """The state [K, N, S, D] in which each chunk starts.

    `decay` is what a chunk multiplies its first state by, `ends` its last state from zero.
    """
    step = b.branch("carry", ("h", "decay", "end"))
    h, a, end = step.inputs
    graph = step.graph(step.Add(step.Mul(h, a), end), step.Identity(h), rank=3)
    _, starts = b.outputs("Scan", 2, state, decay, ends, body=graph, num_scan_inputs=2)
    return starts


def _outputs(
    b: FunctionBody,
    state: ir.Value,
    delta: ir.Value,
    delta_u: ir.Value,
    B: ir.Value,
    C: ir.Value,
    A: ir.Value,
) -> ir.Value:
    """The outputs [T, K*N, 1, D] of chunks that start in `state`."""
    step = b.branch("read", ("h", "delta", "x", "b", "c"))
    h, delta_t, delta_u_t, B_t, C_t = step.inputs
    h = _advance(step, h, delta_t, delta_u_t, B_t, A)
    graph = step.graph(h, step.MatMul(C_t, h), rank=3)
    sequences = (delta, delta_u, B, C)
    _, y = b.outputs("Scan", 2, state, *sequences, body=graph, num_scan_inputs=4)
    return y


# Static: sixteen steps make a chunk, sixteen chunks a block. Both are unrolled over their sixteen
# members and computed for all chunks at once; a prefix sum over the blocks follows, in doubling
# steps (Hillis and Steele). No loop, no If. (With levels of sixteen all the way up, time and size
# of what TensorRT for RTX 1.7 builds grow exponentially with the levels.)


def _static(b: FunctionBody, scan: Scan) -> ir.Value:
    def members(sequence: ir.Value, axis: int) -> list[ir.Value]:
        return _members(b, b.Unsqueeze(sequence, b.ints(axis)))

    delta, delta_u = members(scan.delta, 2), members(scan.delta_u, 2)
    B, C = members(scan.B, 3), members(scan.C, 3)
    # The states at the ends of the chunks. The products B delta_u are not shared with the steps
    # below: all sixteen of them would have to be kept until then.
    total, ends = delta[-1], b.Mul(B[-1], delta_u[-1])
    for step in reversed(range(RADIX - 1)):
        decayed = b.Mul(delta_u[step], b.Exp(b.Mul(total, scan.A)))
        ends = b.Add(ends, b.Mul(B[step], decayed))
        total = b.Add(total, delta[step])

    # The outputs, from the right states.
    h, outputs = _starts_of_chunks(b, total, ends, scan.A), []
    for step in range(RADIX):
        h = _advance(b, h, delta[step], delta_u[step], B[step], scan.A)
        outputs.append(b.ReduceSum(b.Mul(C[step], h), b.ints(2), keepdims=1))
    y = b.Reshape(b.Concat(*outputs, axis=2), b.Concat(b.ints(0, -1), b.size(h, 3), axis=0))
    return b.Slice(y, b.ints(0), b.size(scan.delta, 1), b.ints(1))


def _starts_of_chunks(b: FunctionBody, delta: ir.Value, ends: ir.Value, A: ir.Value) -> ir.Value:
    """The state [N, M, S, D] in which each of M chunks starts.

    `delta` [N, M, 1, D] is the sum over a chunk; `ends` is its last state if it starts from zero.
    """
    steps, states = _members(b, delta), _members(b, ends)
    total, last = steps[-1], states[-1]  # of each block of sixteen chunks
    for step, state in zip(reversed(steps[:-1]), reversed(states[:-1]), strict=True):
        last = b.Add(last, b.Mul(state, b.Exp(b.Mul(total, A))))
        total = b.Add(total, step)
    starts = [_starts_of_blocks(b, total, last, A)]
    for step, state in zip(steps[:-1], states[:-1], strict=True):
        starts.append(b.Add(b.Mul(starts[-1], b.Exp(b.Mul(step, A))), state))
    shape = b.Concat(b.ints(0, -1), b.Shape(ends, start=2, end=4), axis=0)
    joined = b.Reshape(b.Concat(*starts, axis=2), shape)
    return b.Slice(joined, b.ints(0), b.size(ends, 1), b.ints(1))


def _starts_of_blocks(b: FunctionBody, total: ir.Value, ends: ir.Value, A: ir.Value) -> ir.Value:
    """The same for blocks, in doubling steps."""
    count = b.size(ends, 1)

    def later(x: ir.Value, blocks: int) -> ir.Value:
        moved = b.Pad(x, b.ints(0, blocks, 0, 0, 0, 0, 0, 0))
        return b.Slice(moved, b.ints(0), count, b.ints(1))

    for doubling in range(DOUBLINGS):
        ends = b.Add(ends, b.Mul(later(ends, 2**doubling), b.Exp(b.Mul(total, A))))
        total = b.Add(total, later(total, 2**doubling))
    return later(ends, 1)


def _members(b: FunctionBody, x: ir.Value) -> list[ir.Value]:
    """[N, M, R, E] -> sixteen [N, ceil(M/16), R, E]: the first of each chunk, the second, ...

    The zeros that are appended leave a state as it is: they are steps of size zero.
    """
    count, radix = b.size(x, 1), b.ints(RADIX)
    up = b.Mul(b.Div(b.Add(count, b.ints(RADIX - 1)), radix), radix)
    padded = b.Pad(x, b.Concat(b.ints(0, 0, 0, 0, 0), b.Sub(up, count), b.ints(0, 0), axis=0))
    shape = b.Concat(b.ints(0, -1), b.Mul(b.size(x, 2), radix), b.size(x, 3), axis=0)
    return list(b.split(b.Reshape(padded, shape), RADIX, axis=2))
