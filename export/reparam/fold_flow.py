"""Fold batch normalization, masks and the last factor of UFPNet's flow into the layers around it.

Each step of the flow is u = a y + b (inverse batch normalization), followed by a coupling that
leaves the channels K unchanged and changes the channels C:

    u_K,  u_C exp(s(u_K)) + t(u_K)
    s'(y_K) = s(a_K y_K + b_K) + log a_C: columns and bias of the first layer, bias of the last
    y_C  ->  (y_C + b_C / a_C) exp(s'(y_K)) + t'(y_K)

y_K itself is not scaled: its affine map a_K, b_K is pending and is composed with that of the next
step, in which these channels change. In the last step it is folded into the layers that compute
y_K. Only the columns K and the rows C of the perceptrons remain, half of their products. The
channels are sorted so that K and C are contiguous, by permuting the rows of the convolution that
computes the codes and the columns of those that read the kernels. The factor
normalization / (1 - 2 alpha) of the kernels is folded into the latter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.folded_flow import FoldedCoupling, FoldedFlow
from deblur_export.models.blocks.kernel_prior import Coupling, FlowBatchNorm, KernelPrior
from deblur_export.models.blocks.ufp_encoder import UFPEncoder


class Affine(NamedTuple):
    """The per-channel affine map y -> scale y + offset, with `scale` and `offset` [C]."""

    scale: Tensor
    offset: Tensor

    def after(self, first: Affine) -> Affine:
        """The composition that applies `first`, then this map."""
        return Affine(self.scale * first.scale, self.scale * first.offset + self.offset)

    def of(self, channels: Tensor) -> Affine:
        """The map restricted to these channels."""
        return Affine(self.scale[channels], self.offset[channels])

    def reset(self, channels: Tensor) -> Affine:
        """The same map, but the identity at these channels."""
        return Affine(self.scale.index_fill(0, channels, 1), self.offset.index_fill(0, channels, 0))


def fold_flow(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Replace the `KernelPrior` of every `UFPEncoder` by an equivalent `FoldedFlow`."""
    changes = Changes()
    for name, encoder in named_instances(net, UFPEncoder):
        location = f"{name}.flow".lstrip(".")
        reason = _why_not(encoder.flow)
        if reason:
            changes.declined.append((location, reason))
            continue
        with torch.no_grad():
            factor = encoder.flow.normalization / (1 - 2 * encoder.flow.alpha)
            encoder.flow = fold(encoder.flow)
            _sort_channels(encoder, encoder.flow.order, factor)
        changes.changed.append(location)
    return changes


def _why_not(flow: KernelPrior | FoldedFlow) -> str:
    """Why the flow cannot be folded, or ""."""
    if isinstance(flow, FoldedFlow):
        return "already folded"
    masks = torch.stack([layer.mask for layer in flow.net if isinstance(layer, Coupling)])
    binary = torch.equal(masks * masks, masks)
    alternating = bool((masks[1:] + masks[:-1] == 1).all())
    return "" if binary and alternating else "its masks do not alternate"


def fold(flow: KernelPrior) -> FoldedFlow:
    """The equivalent flow on sorted channels; see `FoldedFlow`."""
    steps: list[Any] = list(reversed(list(flow.net)))
    norms, couplings, mask = steps[0::2], steps[1::2], steps[1].mask
    kept, changed = mask.nonzero().flatten(), (1 - mask).nonzero().flatten()
    folded = FoldedFlow(torch.cat([kept, changed]), len(kept), flow.alpha, len(couplings))
    folded.to(mask)
    pending = Affine(torch.ones_like(mask), torch.zeros_like(mask))
    for number, (norm, coupling) in enumerate(zip(norms, couplings, strict=True)):
        pending = _inverse(norm).after(pending)
        if coupling is couplings[-1]:
            _append(folded.couplings[number - 1], pending.of(kept))
            pending = pending.reset(kept)
        _fill(folded.couplings[number], coupling, kept, changed, pending)
        pending = pending.reset(changed)
        kept, changed = changed, kept
    return folded


def _inverse(norm: FlowBatchNorm) -> Affine:
    scale = norm.scale()
    return Affine(scale, norm.running_mean - norm.beta * scale)


def _fill(
    folded: nn.Module, coupling: Coupling, kept: Tensor, changed: Tensor, pending: Affine
) -> None:
    """Set the weights of a folded coupling to those of `coupling` with the pending affine map."""
    assert isinstance(folded, FoldedCoupling)
    before, changing = pending.of(kept), pending.of(changed)
    for source, net in ((coupling.s_net, folded.s_net), (coupling.t_net, folded.t_net)):
        first, middle, last = (layer for layer in source if isinstance(layer, nn.Linear))
        columns = first.weight[:, kept]
        _set(net[0], columns * before.scale, first.bias + columns @ before.offset)
        _set(net[2], middle.weight, middle.bias)
        _set(net[4], last.weight[changed], last.bias[changed])
    _add_to_bias(folded.s_net[4], changing.scale.log())
    folded.shift.copy_((changing.offset / changing.scale).view_as(folded.shift))


def _append(folded: nn.Module, affine: Affine) -> None:
    """Fold an affine map into the output of a coupling."""
    assert isinstance(folded, FoldedCoupling)
    _add_to_bias(folded.s_net[4], affine.scale.log())
    last = _conv(folded.t_net[4])
    _set(last, affine.scale[:, None] * last.weight.flatten(1), affine.scale * _bias(last))
    _add_to_bias(last, affine.offset)


def _conv(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d)
    return layer


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _add_to_bias(layer: nn.Module, value: Tensor) -> None:
    _bias(_conv(layer)).add_(value)


def _set(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    conv = _conv(layer)
    conv.weight.copy_(weight.reshape(conv.weight.shape))
    _bias(conv).copy_(bias)


def _sort_channels(encoder: UFPEncoder, order: Tensor, factor: Tensor) -> None:
    """Permute the layers around the flow so that they write and read its channels in `order`."""
    codes = _conv(encoder.kernel_extra.Conv_tail.mean[2])
    _set(codes, codes.weight[order], _bias(codes)[order])
    for reader in encoder.kernel_readers():
        reader.weight.copy_(reader.weight[:, order] * factor)
