"""Remove parameters that inference never reads (training-only heads, unused scales) and dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from deblur_export.export.reparam.infra import Changes, named_instances, set_module

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


class _ReadTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every tensor that is an input of an operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_iter((args, kwargs)):
            if isinstance(leaf, Tensor):
                self.read.add(id(leaf))
        return func(*args, **(kwargs or {}))


def remove_dead_branches(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Remove parameters that no operator of the forward pass reads, and dropout layers.

    A module that is never called and whose parameters are all unused becomes an Identity; any other
    unused parameter becomes None.
    """
    changes = Changes()
    called: set[nn.Module] = set()
    hook = register_module_forward_pre_hook(lambda module, inputs: called.add(module))
    try:
        with torch.no_grad(), _ReadTensors() as mode:
            net(*probe)
    finally:
        hook.remove()
    dead = {name for name, p in net.named_parameters() if id(p) not in mode.read}
    for name, module in list(net.named_modules()):
        own = {f"{name}.{leaf}" for leaf, _ in module.named_parameters()} if name else set()
        if own and own <= dead and called.isdisjoint(module.modules()):
            set_module(net, name, nn.Identity())
            changes.changed.append(name)
            dead -= own
    for name in sorted(dead):
        owner, _, leaf = name.rpartition(".")
        net.get_submodule(owner).register_parameter(leaf, None)
        changes.changed.append(name)
    for name, _ in list(named_instances(net, DROPOUTS)):  # type: ignore[arg-type]
        set_module(net, name, nn.Identity())
        changes.changed.append(name)
    return changes
