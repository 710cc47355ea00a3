"""Recognise layer norms that are written out, as one `layer_norm` each.

    (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)

over the channels of [N, C, H, W] or over the last axis, with `var(unbiased=False)` too, and with
`rsqrt` or a power. As a LayerNormalization it is in FP16 with statistics in float32; written out it
stays in float32. Without the subtraction of the mean it is none and is left as it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import fx

from deblur_export.export.graph_folds.match import arguments, aten, is_call, shape
from deblur_export.export.graph_folds.program import Program
from deblur_export.export.reparam.infra import Changes

ROOTS: dict[Any, bool] = {
    aten.sqrt.default: False,
    aten.rsqrt.default: True,
}  # whether it is inverted
TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


class Variance(NamedTuple):
    """The biased variance of `x` along one axis."""

    x: fx.Node
    axis: int


def recognise_layer_norm(program: Program) -> Changes:
    """Replace every such norm; the changes are the paths of the modules that they are in."""
    changes = Changes()
    for node in list(program.graph.nodes):
        inverted = _root(node)
        if inverted is None or program.is_written(node):
            continue
        found = _variance_and_epsilon(node)
        if found is None or program.is_written(found[0].x):
            continue
        (x, axis), eps = found
        rank = len(shape(x))
        channels = shape(x)[axis]
        name = program.name(node)
        if not isinstance(channels, int) or not (axis == rank - 1 or (axis, rank) == (1, 4)):
            changes.declined.append((name, "it is over other axes"))
            continue
        quotients = [_quotient(user, node, x, axis, inverted) for user in node.users]
        if not quotients or None in quotients:
            changes.declined.append((name, "its deviation is used for something else"))
            continue
        for quotient in quotients:
            assert quotient is not None
            _replace(program, quotient, x, axis, channels, eps)
        changes.changed.append(name)
    return changes


def _root(node: fx.Node) -> bool | None:
    """Whether a square root is inverted; None if it is none."""
    if is_call(node, *ROOTS):
        return ROOTS[node.target]
    if is_call(node, aten.pow.Tensor_Scalar) and node.args[1] in (0.5, -0.5):
        return bool(node.args[1] == -0.5)
    return None


def _variance_and_epsilon(root: fx.Node) -> tuple[Variance, float] | None:
    total = root.args[0]
    if not is_call(total, aten.add.Tensor, aten.add.Scalar):
        return None
    own = arguments(total)
    eps, variance = own["other"], _variance(own["self"])
    if variance is None or not isinstance(eps, (int, float)) or own["alpha"] != 1:
        return None
    return variance, float(eps)


def _variance(node: object) -> Variance | None:
    if is_call(node, aten.var.correction, aten.var.dim):
        own = arguments(node)
        biased = own.get("correction") == 0 if "correction" in own else not own["unbiased"]
        axis = _single_axis(own["dim"], own["self"])
        return (
            Variance(own["self"], axis) if biased and own["keepdim"] and axis is not None else None
        )
    if not is_call(node, aten.mean.dim):
        return None
    own = arguments(node)
    square = own["self"]
    if (
        (is_call(square, aten.pow.Tensor_Scalar) and square.args[1] in (2, 2.0))
        or is_call(square, aten.square.default)
        or (is_call(square, aten.mul.Tensor) and square.args[0] is square.args[1])
    ):
        inner = square.args[0]
    else:
        return None
    axis = _single_axis(own["dim"], square)
    if axis is None or not own["keepdim"]:
        return None
    x = _centred(inner, axis)
    return None if x is None else Variance(x, axis)


def _single_axis(dims: list[int] | None, node: fx.Node) -> int | None:
    return dims[0] % len(shape(node)) if dims is not None and len(dims) == 1 else None


def _centred(node: object, axis: int) -> fx.Node | None:
    """x, if the node is x - mean(x) along this axis."""
    if not is_call(node, aten.sub.Tensor):
        return None
    own = arguments(node)
    x, mean = own["self"], own["other"]
    if own["alpha"] != 1 or not isinstance(x, fx.Node) or not is_call(mean, aten.mean.dim):
        return None
    of_mean = arguments(mean)
    same = of_mean["self"] is x and of_mean["keepdim"] and of_mean["dtype"] is None
    return x if same and _single_axis(of_mean["dim"], x) == axis else None


def _quotient(
    user: fx.Node, root: fx.Node, x: fx.Node, axis: int, inverted: bool
) -> fx.Node | None:
    """The call that divides the centred x by the root."""
    if is_call(user, aten.reciprocal.default) and not inverted and len(user.users) == 1:
        return _quotient(next(iter(user.users)), user, x, axis, True)
    if is_call(user, aten.mul.Tensor if inverted else aten.div.Tensor):
        left, right = user.args[:2]
        if inverted and left is root:
            left, right = right, left
        if right is root and _centred(left, axis) is x:
            return user
    return None


def _replace(
    program: Program, quotient: fx.Node, x: fx.Node, axis: int, channels: int, eps: float
) -> None:
    over_channels = axis != len(shape(x)) - 1
    first = program.call(aten.permute.default, (x, TO_LAST), quotient) if over_channels else x
    normal = program.call(aten.layer_norm.default, (first, [channels], None, None, eps), quotient)
    last = normal
    if over_channels:
        last = program.call(aten.permute.default, (normal, TO_FIRST), quotient)
    program.replace(quotient, last)
