"""Merge parallel convolutions of one input whose outputs are added into one convolution.

    conv3x3(x) + conv1x1(x) + s x + t  ->  conv'3x3(x)

RepVGG, ACB (3x3 + 1x3 + 3x1) and their kin. Smaller kernels are placed at the taps that they read;
a batch norm of the input itself, or a factor of it, is a 1x1 with one tap. A plain residual stays
an addition: 1 beside small weights would cost them their digits in FP16 and INT8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from deblur_export.export.graph_folds.affine import Affine
from deblur_export.export.graph_folds.fold_batch_norm import affine_of
from deblur_export.export.graph_folds.match import (
    CONVS,
    Layer,
    arguments,
    aten,
    is_call,
    layer_of,
    only_user,
    shape,
)
from deblur_export.export.graph_folds.program import SCOPED, Program
from deblur_export.export.reparam.infra import Changes


@dataclass(frozen=True)
class Window:
    """The taps of a convolution along each axis: from -before to after, in pixels of dilation 1."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def is_centred(self) -> bool:
        return self.before == self.after

    @property
    def area(self) -> int:
        area = 1
        for b, a in zip(self.before, self.after, strict=True):
            area *= a + b + 1
        return area


def merge_branches(program: Program) -> Changes:
    """Merge such branches; the changes are the paths of the convolutions."""
    changes = Changes()
    for node in list(program.graph.nodes):
        if not is_call(node, aten.add.Tensor) or _is_inner_sum(program, node):
            continue
        terms = _terms(program, node)
        groups: dict[tuple[object, ...], list[Layer]] = {}
        for term in terms:
            layer = layer_of(program, term)
            window = None if layer is None else _window(layer)
            if layer is not None and window is not None and only_user(program, term) is not None:
                groups.setdefault((layer.x, window.stride, layer.channels), []).append(layer)
        merged = {}
        for layers in groups.values():
            if len(layers) > 1 and _pays(layers):
                maps = [t for t in terms if _map_of(program, t, layers[0]) is not None]
                merged.update({member.node: layers for member in layers})
                merged.update(dict.fromkeys(maps, layers))
        if not merged:
            continue
        _rebuild(program, node, terms, merged)
        for layers in {id(group): group for group in merged.values()}.values():
            changes.changed += [program.name(layer.node) for layer in layers]
    return changes


def _is_sum(program: Program, node: object) -> bool:
    if not is_call(node, aten.add.Tensor):
        return False
    assert isinstance(node, fx.Node)
    own = arguments(node)
    both = (own["self"], own["other"])
    return own["alpha"] == 1 and all(
        (isinstance(n, fx.Node) and n.op == "call_function" and shape(n) == shape(node))
        or n is program.image
        for n in both
    )


def _is_inner_sum(program: Program, node: fx.Node) -> bool:
    user = only_user(program, node)
    return user is not None and _is_sum(program, user) and _is_sum(program, node)


def _terms(program: Program, node: fx.Node) -> list[fx.Node]:
    """The terms of a sum, through sums that only this one reads."""
    if not _is_sum(program, node):
        return [node]
    found: list[fx.Node] = []
    for term in (arguments(node)["self"], arguments(node)["other"]):
        inner = _is_sum(program, term) and only_user(program, term) is not None
        found += _terms(program, term) if inner else [term]
    return found


def _window(layer: Layer) -> Window | None:
    """The taps of a convolution that pads with zeros; None for other layers and dilations."""
    if not is_call(layer.node, *CONVS) or len(shape(layer.x)) != len(shape(layer.weight)):
        return None
    own, sides = arguments(layer.node), shape(layer.weight)[2:]
    if any(d != 1 for d in own["dilation"]):
        return None
    padding = own["padding"]
    if isinstance(padding, str):
        if padding == "same" and any(k % 2 == 0 for k in sides):
            return None
        padding = [k // 2 for k in sides] if padding == "same" else [0]
    padding = tuple(padding) * (len(sides) if len(padding) == 1 else 1)
    stride = tuple(own["stride"]) * (len(sides) if len(own["stride"]) == 1 else 1)
    after = tuple(k - 1 - p for k, p in zip(sides, padding, strict=True))
    window = Window(padding, after, stride)
    return window if window.is_centred else None


def _pays(layers: list[Layer]) -> bool:
    """Whether the merged convolution has no more products than the layers together."""
    groups = min(layer.groups for layer in layers)
    if any(layer.groups % groups for layer in layers):
        return False
    windows = [window for layer in layers if (window := _window(layer)) is not None]
    inputs = shape(layers[0].x)[1]
    before = sum(w.area * inputs // layer.groups for w, layer in zip(windows, layers, strict=True))
    return bool(_union(windows).area * inputs // groups <= before)


def _union(windows: list[Window]) -> Window:
    before, after = (
        tuple(map(max, *sides))
        for sides in ([w.before for w in windows], [w.after for w in windows])
    )
    return Window(before, after, windows[0].stride)


def _map_of(program: Program, term: fx.Node, layer: Layer) -> Affine | None:
    """The map per channel of the layers' input that a term is; None if it is none."""
    affine = affine_of(program, term)
    same = affine is not None and arguments(term)["input"] is layer.x
    if not same or only_user(program, term) is None or shape(layer.x) != shape(layer.node):
        return None
    return affine


def _rebuild(
    program: Program,
    total: fx.Node,
    terms: list[fx.Node],
    merged: dict[fx.Node, list[Layer]],
) -> None:
    """Replace a sum by that of its merged terms."""
    new: list[fx.Node] = []
    done: set[int] = set()
    for term in terms:
        layers = merged.get(term)
        if layers is None:
            new.append(term)
        elif id(layers) not in done:
            done.add(id(layers))
            maps = [
                affine
                for other in terms
                if merged.get(other) is layers
                and (affine := _map_of(program, other, layers[0])) is not None
            ]
            new.append(_merge(program, layers, maps, total))
    result = new[0]
    for term in new[1:]:
        result = program.call(aten.add.Tensor, (result, term), total)
    result.meta[SCOPED] = total.meta.get(SCOPED, {})
    program.replace(total, result)


def _merge(program: Program, layers: list[Layer], maps: list[Affine], total: fx.Node) -> fx.Node:
    windows = [window for layer in layers if (window := _window(layer)) is not None]
    union = _union(windows)
    groups = min(layer.groups for layer in layers)
    widest = max(range(len(layers)), key=lambda index: windows[index].area)
    order = [widest, *(i for i in range(len(layers)) if i != widest)]
    ordered = [layers[i] for i in order]
    pads = [_pads(union, windows[i]) for i in order]
    inputs = shape(layers[0].x)[1]

    def weight(*values: Tensor) -> Tensor:
        result = sum(
            torch.nn.functional.pad(_regrouped(value, layer.groups, groups), pad)
            for value, layer, pad in zip(values, ordered, pads, strict=False)
        )
        assert isinstance(result, Tensor)
        for scale, _ in _vectors(values[len(ordered) :]):
            eye = torch.diag(scale).view(inputs, inputs, *[1] * len(union.before))
            around = [
                side for b, a in zip(union.before, union.after, strict=True) for side in (a, b)
            ][::-1]
            result = result + torch.nn.functional.pad(_regrouped_dense(eye, groups), around)
        return result

    def _vectors(values: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
        found, start = [], 0
        for affine in maps:
            end = start + len(affine.constants)
            found.append(affine.vectors(*values[start:end]))
            start = end
        return found

    of_maps = [node for affine in maps for node in affine.constants]
    biases = [layer.bias for layer in ordered if layer.bias is not None]

    def bias(*values: Tensor) -> Tensor:
        shifts = [shift for _, shift in _vectors(values[len(biases) :])]
        return torch.stack([*values[: len(biases)], *shifts]).sum(0)

    new_weight = program.computed(weight, *(layer.weight for layer in ordered), *of_maps)
    new_bias = program.computed(bias, *biases, *of_maps) if biases or maps else None
    if new_bias is not None and not biases:
        program.bias_of(new_bias, new_weight)
    first = ordered[0].node
    arguments_of = (
        layers[0].x,
        new_weight,
        new_bias,
        list(union.stride),
        list(union.before),
        [1] * len(union.before),
        groups,
    )
    convolution = getattr(aten, f"conv{len(union.before)}d").default
    return program.call(convolution, arguments_of, first, before=total)


def _pads(union: Window, own: Window) -> list[int]:
    """How a kernel is padded to the taps of a larger window, for `torch.nn.functional.pad`."""
    sides = zip(union.before, own.before, union.after, own.after, strict=True)
    return [n for ub, ob, ua, oa in reversed(list(sides)) for n in (ub - ob, ua - oa)]


def _regrouped(weight: Tensor, groups: int, wanted: int) -> Tensor:
    """The same convolution with fewer groups: zeros where a group did not read."""
    if groups == wanted:
        return weight
    ratio = groups // wanted
    rows, columns = len(weight) // groups, weight.shape[1]
    result = weight.new_zeros(len(weight), columns * ratio, *weight.shape[2:])
    for group in range(groups):
        place = group % ratio
        result[group * rows : (group + 1) * rows, place * columns : (place + 1) * columns] = weight[
            group * rows : (group + 1) * rows
        ]
    return result


def _regrouped_dense(weight: Tensor, groups: int) -> Tensor:
    """The blocks of a dense kernel that a convolution of `groups` has."""
    rows, columns = len(weight) // groups, weight.shape[1] // groups
    return torch.cat(
        [weight[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] for g in range(groups)]
    )
