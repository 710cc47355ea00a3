"""Fold y -> s y + t, per channel, into a layer before or after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from deblur_export.export.graph_folds.match import (
    Layer,
    arguments,
    aten,
    is_call,
    layer_of,
    leaves,
    moved_from,
    only_user,
    set_weights,
    shape,
)
from deblur_export.export.graph_folds.program import Program

Vectors = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Affine:
    """The map y -> scale y + shift along one axis.

    Attributes:
        constants: of which scale and shift are computed.
        vectors: gives scale and shift, both [C], of the values of the constants.
        shifts: whether it has a shift; if not, that is 0 whatever the constants are.
    """

    constants: tuple[fx.Node, ...]
    vectors: Vectors
    shifts: bool


def fold_into_source(program: Program, y: fx.Node, axis: int, affine: Affine) -> str:
    """Fold a map of `y`, whose only user applies it, into the layer or the layer norm that computes
    `y`; returns why not, or ""."""
    if only_user(program, y) is None:
        return "its input has other users"
    source, place = moved_from(program, y, axis)
    if only_user(program, source) is None:
        return "its input has other users"
    if is_call(source, aten.layer_norm.default):
        return _into_norm(program, source, place, affine)
    layer = layer_of(program, source)
    if layer is None:
        return "its input is not the output of a layer"
    if place != layer.out_axis:
        return "it acts along another axis than the layer before it"
    if is_shared(layer.weight):
        return "the layer before it shares its weight"
    apply_after(program, layer, affine)
    return ""


def is_shared(constant: fx.Node) -> bool:
    return len(constant.users) > 1


def apply_after(program: Program, layer: Layer, affine: Affine) -> None:
    """Give a layer the weights with which it computes the map of its output."""
    count = len(affine.constants)

    def weight(value: Tensor, *constants: Tensor) -> Tensor:
        return scaled_rows(layer, value, affine.vectors(*constants)[0])

    def bias(*values: Tensor) -> Tensor:
        scale, shift = affine.vectors(*values[-count:] if count else ())
        return scale * values[0] + shift if len(values) > count else shift.clone()

    own = None
    if layer.bias is not None:
        own = program.computed(bias, layer.bias, *affine.constants)
    elif affine.shifts:
        own = program.computed(bias, *affine.constants)
        program.bias_of(own, layer.weight)
    set_weights(program, layer, program.computed(weight, layer.weight, *affine.constants), own)


def scaled_rows(layer: Layer, weight: Tensor, scale: Tensor) -> Tensor:
    """The weight of a layer whose outputs are multiplied by `scale` [channels]."""
    if layer.kind != "transposed":
        return weight * scale.view(-1, *[1] * (weight.dim() - 1))
    grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])  # [groups, in, out, ...]
    rows = scale.view(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
    return (grouped * rows).reshape(weight.shape)


def _into_norm(program: Program, norm: fx.Node, axis: int, affine: Affine) -> str:
    own = arguments(norm)
    if len(own["normalized_shape"]) != 1 or axis != len(shape(norm)) - 1:
        return "it acts along another axis than the norm before it"
    weight, bias, channels = own["weight"], own["bias"], own["normalized_shape"][0]
    old = [n for n in (weight, bias) if n is not None]
    if not all(map(program.is_constant, old)) or not affine.constants:
        return "the norm before it has no constant weight"

    def vectors(*values: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = affine.vectors(*values[len(old) :])
        first = values[0] if weight is not None else torch.ones(channels).to(scale)
        second = values[len(old) - 1] if bias is not None else torch.zeros(channels).to(scale)
        return scale * first, scale * second + shift

    constants = (*old, *affine.constants)
    new_weight = program.computed(lambda *values: vectors(*values)[0].clone(), *constants)
    new_bias = bias
    if bias is not None or affine.shifts:
        new_bias = program.computed(lambda *values: vectors(*values)[1].clone(), *constants)
        program.sources[new_bias.name] = program.sources[(bias or affine.constants[-1]).name]
    norm.args = (own["input"], own["normalized_shape"], new_weight, new_bias, own["eps"])
    norm.kwargs = {}
    return ""


def fold_into_users(program: Program, y: fx.Node, axis: int, affine: Affine) -> str:
    """Fold a map whose result is `y` into all the layers that read `y`; the caller then leaves the
    map out. Returns why not, or ""."""
    if program.is_written(y):
        return "its output is written into"
    layers = []
    for user, read, place in leaves(y, axis):
        layer = layer_of(program, user)
        if layer is None or layer.x is not read or place != layer.in_axis:
            return "not all that read its output are layers over the channels"
        if is_shared(layer.weight):
            return "a layer after it shares its weight"
        if affine.shifts and not layer.is_pointwise and not layer.is_unpadded:
            return "a layer after it pads with zeros"
        layers.append(layer)
    if not layers or len({layer.node for layer in layers}) < len(layers):
        return "nothing reads its output once"
    for layer in layers:
        _apply_before(program, layer, affine)
    return ""


def _apply_before(program: Program, layer: Layer, affine: Affine) -> None:
    def weight(value: Tensor, *constants: Tensor) -> Tensor:
        return value * _columns(layer, value, affine.vectors(*constants)[0])

    def bias(*values: Tensor) -> Tensor:
        old = values[0] if layer.bias is not None else 0
        matrix, *constants = values[1:] if layer.bias is not None else values
        shift = _columns(layer, matrix, affine.vectors(*constants)[1])
        return old + (matrix * shift).flatten(1).sum(1)

    own = None
    if affine.shifts:
        first = () if layer.bias is None else (layer.bias,)
        own = program.computed(bias, *first, layer.weight, *affine.constants)
        if layer.bias is None:
            program.bias_of(own, layer.weight)
    set_weights(program, layer, program.computed(weight, layer.weight, *affine.constants), own)


def _columns(layer: Layer, weight: Tensor, vector: Tensor) -> Tensor:
    """A vector over the input channels, shaped to be broadcast against the weight."""
    ones = [1] * (weight.dim() - 2)
    if layer.kind == "transposed":
        return vector.view(-1, 1, *ones)
    rows = len(weight) // layer.groups
    grouped = vector.view(layer.groups, 1, -1).expand(-1, rows, -1)
    return grouped.reshape(len(weight), -1, *ones)
