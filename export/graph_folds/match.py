"""Read the ATen calls of a captured graph: arguments by name, layers, per-channel constants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx

from deblur_export.export.graph_folds.program import Program

aten = torch.ops.aten
CONVS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
}
TRANSPOSED = {
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
}
PERMUTES = {aten.permute.default, aten.transpose.int}
VIEWS = {aten.view.default, aten.reshape.default, aten.flatten.using_ints}


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call of an operator by name, with their defaults."""
    found = {}
    for position, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if position < len(node.args):
            found[argument.name] = node.args[position]
        else:
            found[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return found


def is_call(value: object, *targets: Any) -> TypeGuard[fx.Node]:
    """Whether this is the node of a call of one of these operators."""
    return isinstance(value, fx.Node) and value.op == "call_function" and value.target in targets


def shape(node: fx.Node) -> list[Any]:
    """The sizes of a tensor; those of free dimensions are text, which is equal only where they are
    equal for every image."""
    return [s if isinstance(s, int) else str(s.node.expr) for s in node.meta["val"].shape]


@dataclass(frozen=True)
class Layer:
    """A convolution, transposed convolution or linear layer whose weight is a constant.

    Attributes:
        node: its call.
        x: its input.
        weight: its weight, a constant.
        bias: its bias, a constant, or None.
        kind: "conv", "transposed" or "linear".
        groups: of a convolution; otherwise 1.
        channels: of its output.
    """

    node: fx.Node
    x: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    kind: str
    groups: int
    channels: int

    @property
    def out_axis(self) -> int:
        return len(shape(self.node)) - 1 if self.kind == "linear" else self._channel_axis()

    @property
    def in_axis(self) -> int:
        return len(shape(self.x)) - 1 if self.kind == "linear" else self._channel_axis()

    def _channel_axis(self) -> int:
        return 1 if len(shape(self.x)) == len(shape(self.weight)) else 0

    @property
    def is_pointwise(self) -> bool:
        """Whether every output pixel is a linear map of one input pixel."""
        return self.kind == "linear" or (
            self.kind == "conv" and all(k == 1 for k in shape(self.weight)[2:]) and self.is_unpadded
        )

    @property
    def is_unpadded(self) -> bool:
        """Whether a convolution reads pixels of the image only."""
        if self.kind != "conv":
            return False
        padding = arguments(self.node)["padding"]
        return padding == "valid" or (not isinstance(padding, str) and not any(padding))


def layer_of(program: Program, node: object) -> Layer | None:
    """The layer that a node is a call of, or None."""
    if not isinstance(node, fx.Node) or not is_call(node, aten.linear.default, *CONVS, *TRANSPOSED):
        return None
    own = arguments(node)
    weight, bias, x = own["weight"], own["bias"], own["input"]
    if program.is_written(node):
        return None
    if not program.is_constant(weight) or not (bias is None or program.is_constant(bias)):
        return None
    groups = own.get("groups", 1)
    if node.target in TRANSPOSED:
        return Layer(node, x, weight, bias, "transposed", groups, shape(weight)[1] * groups)
    kind = "conv" if node.target in CONVS else "linear"
    return Layer(node, x, weight, bias, kind, groups, shape(weight)[0])


def set_weights(
    program: Program, layer: Layer, weight: fx.Node | None, bias: fx.Node | None
) -> None:
    """Give a layer another weight or bias; None keeps it."""
    names = [argument.name for argument in layer.node.target._schema.arguments]  # type: ignore[union-attr]
    values = arguments(layer.node)
    if weight is not None:
        values["weight"] = weight
    if bias is not None:
        values["bias"] = bias
    kept = max([names.index("bias") + 1 if values["bias"] is not None else 2, len(layer.node.args)])
    layer.node.args = tuple(values[name] for name in names[:kept])
    layer.node.kwargs = {
        name: value for name, value in layer.node.kwargs.items() if name in names[kept:]
    }


def only_user(program: Program, node: fx.Node) -> fx.Node | None:
    """The only call that reads a node; None if there are others, or it reads it twice."""
    users = list(node.users)
    if (
        program.is_written(node)
        or len(users) != 1
        or sum(n is node for n in users[0].all_input_nodes) != 1
    ):
        return None
    return users[0]


def carried(node: fx.Node, axis: int) -> int | None:
    """Where a call that only moves entries of its input puts an axis of it; None if elsewhere."""
    own = arguments(node)
    before = own.get("self")
    if not isinstance(before, fx.Node):
        return None
    if is_call(node, aten.permute.default):
        rank = len(own["dims"])
        places: list[int] = [d % rank for d in own["dims"]]
        return places.index(axis)
    if is_call(node, aten.transpose.int):
        rank = len(shape(before))
        first, second = own["dim0"] % rank, own["dim1"] % rank
        return int({first: second, second: first}.get(axis, axis))
    if not is_call(node, *VIEWS):
        return None
    old, new = shape(before), shape(node)
    if old[axis + 1 :] == new[len(new) - len(old) + axis + 1 :] and len(new) - len(old) + axis >= 0:
        place = len(new) - len(old) + axis  # the axes after it are kept
        if new[place] == old[axis] and isinstance(old[axis], int):
            return place
    if old[: axis + 1] == new[: axis + 1] and isinstance(old[axis], int):
        return axis
    return None


def moved_from(program: Program, node: fx.Node, axis: int) -> tuple[fx.Node, int]:
    """The call that computed a tensor, before calls that only move its entries and that nothing
    else reads, and where this axis was."""
    while is_call(node, *PERMUTES, *VIEWS):
        before = arguments(node)["self"]
        if only_user(program, before) is None:
            break
        places = (a for a in range(len(shape(before))) if carried(node, a) == axis)
        place = next(places, None)
        if place is None:
            break
        node, axis = before, place
    return node, axis


def leaves(node: fx.Node, axis: int) -> Iterator[tuple[fx.Node, fx.Node, int | None]]:
    """The calls that read a tensor, through calls that only move its entries: each with the tensor
    that it reads and where this axis is, None where that is not known."""
    for user in node.users:
        if is_call(user, *PERMUTES, *VIEWS):
            place = carried(user, axis)
            if place is not None:
                yield from leaves(user, place)
                continue
        yield user, node, axis


def per_channel(
    program: Program, value: object, node: fx.Node, axis: int
) -> Callable[[Tensor], Tensor] | None:
    """A function that makes of a constant, which is broadcast against `node`, one number for each
    index of `axis`; None if it varies along another axis, or would enlarge the tensor."""
    if not program.is_constant(value):
        return None
    assert isinstance(value, fx.Node)
    sizes, own = shape(node), list(program.value(value).shape)
    if not program.value(value).is_floating_point() or len(own) > len(sizes):
        return None
    own = [1] * (len(sizes) - len(own)) + own
    channels = sizes[axis]
    if not isinstance(channels, int) or own[axis] not in (1, channels):
        return None
    if any(size != 1 for place, size in enumerate(own) if place != axis):
        return None
    return lambda tensor: tensor.reshape(-1).expand(channels)
