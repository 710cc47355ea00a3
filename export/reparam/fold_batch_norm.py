"""Fold batch normalization into the convolution or linear layer before it.

    bn(conv(x))  ->  conv'(x),   W'[o] = W[o] g[o],   bias' = (bias - mean) g + beta,
    g = gamma / sqrt(var + eps)

No network of this package needs this at inference; blocks of other networks do.
"""

from __future__ import annotations

import copy

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from deblur_export.export.reparam.infra import Changes, set_module

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)


class _ChildrenAsLeaves(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def fold_batch_norm(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Fold every batch norm that is the only consumer of a convolution or linear layer.

    Each module is traced with torch.fx, with its children as leaves; a module whose forward cannot
    be traced is declined.
    """
    changes = Changes()
    for parent_name, parent in list(net.named_modules()):
        norms = [name for name, child in parent.named_children() if isinstance(child, BATCH_NORMS)]
        if norms:
            _fold_children(net, parent_name, parent, norms, changes)
    return changes


def _fold_children(
    net: nn.Module, parent_name: str, parent: nn.Module, norms: list[str], changes: Changes
) -> None:
    prefix = f"{parent_name}." if parent_name else ""
    try:
        graph = _ChildrenAsLeaves().trace(parent)
    except Exception as error:  # torch.fx passes on any error of the traced forward
        changes.declined += [
            (prefix + n, f"torch.fx cannot trace its parent: {error}") for n in norms
        ]
        return
    calls = [node for node in graph.nodes if node.op == "call_module"]
    for norm_name in norms:
        reason = _fold_one(net, prefix, parent, norm_name, calls)
        if reason:
            changes.declined.append((prefix + norm_name, reason))
        else:
            changes.changed.append(prefix + norm_name)


def _fold_one(
    net: nn.Module, prefix: str, parent: nn.Module, norm_name: str, calls: list[torch.fx.Node]
) -> str:
    """Fold one batch norm; returns the reason if it cannot be folded, or ""."""
    uses = [node for node in calls if node.target == norm_name]
    if len(uses) != 1:
        return f"called {len(uses)} times"
    source = next(iter(uses[0].all_input_nodes), None)
    if not isinstance(source, torch.fx.Node) or source.op != "call_module":
        return "its input is not the output of a layer"
    if len(source.users) != 1 or sum(node.target == source.target for node in calls) != 1:
        return f"{source.target} has other consumers"
    layer, norm = parent.get_submodule(str(source.target)), parent.get_submodule(norm_name)
    assert isinstance(norm, BATCH_NORMS)
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return "it normalizes with the statistics of the batch"
    if not isinstance(layer, FOLDABLE):
        return f"{source.target} is a {type(layer).__name__}, not a convolution or linear layer"
    if isinstance(layer, TRANSPOSED) and layer.groups > 1:
        return f"{source.target} is a grouped transposed convolution"
    if isinstance(layer, nn.Linear) and layer.out_features != norm.num_features:
        return f"{source.target} operates along another axis"
    fused = copy.deepcopy(layer)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        layer.weight,
        layer.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(layer, TRANSPOSED),
    )
    set_module(net, prefix + str(source.target), fused)
    set_module(net, prefix + norm_name, nn.Identity())
    return ""
