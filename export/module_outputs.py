"""Which values of an exported program are outputs of the network's modules.

A program knows in which module each of its nodes was made, and not which of these nodes the module
returns: attention weights that it keeps, or a map for another branch, leave it too. So both are run
on one image, and a value is a module's output where it has its numbers.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from deblur_export.engine_record import FixedShape

# Of a tensor only so many entries, spread evenly, are kept and compared.
KEPT = 4096
# Largest difference relative to the largest value, and the fraction of entries that must be within
# it: a choice may fall otherwise where a score is within rounding of a threshold.
CLOSE, ALIKE = 1e-4, 0.9


def module_outputs(net: nn.Module, program: ExportedProgram, shape: FixedShape) -> dict[str, str]:
    """The dotted path of the module that each of these nodes of a program is the output of.

    Args:
        net: the network that was captured; it is not changed.
        program: of the same parameters and buffers or of others; of which one image is the input.
        shape: (N, C, H, W) at which both run.

    Returns:
        Paths by name of the node. A module that runs more than once, returns something else than
        one tensor, or whose output another module made, has none.
    """
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    outputs = _outputs(copy.deepcopy(net), image)
    found = _Found(program.module(check_guards=False), outputs)
    with torch.no_grad():
        found.run(image)
    return {node: module for module, node in found.nodes.items()}


@dataclass(frozen=True)
class _Sample:
    """Shape and some entries of a tensor."""

    shape: torch.Size
    entries: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> _Sample:
        flat = tensor.detach().reshape(-1)
        return cls(tensor.shape, flat[:: max(1, flat.numel() // KEPT)].clone())

    def alike(self, other: Tensor) -> bool:
        if other.shape != self.shape or other.dtype != self.entries.dtype or not other.numel():
            return False
        entries = _Sample.of(other).entries
        if not entries.is_floating_point():
            return bool((entries == self.entries).float().mean() >= ALIKE)
        limit = CLOSE * self.entries.abs().max().item()
        return bool(((entries - self.entries).abs() <= limit).float().mean() >= ALIKE)


def _outputs(net: nn.Module, image: Tensor) -> Mapping[str, _Sample]:
    """The outputs of the modules that run once, by their path."""
    calls: Counter[str] = Counter()
    outputs: dict[str, _Sample] = {}

    def hook(name: str) -> Any:
        def note(module: nn.Module, inputs: object, output: object) -> None:
            calls[name] += 1
            if isinstance(output, Tensor):
                outputs[name] = _Sample.of(output)

        return note

    for name, module in net.named_modules():
        if name:
            module.register_forward_hook(hook(name))
    with torch.no_grad():
        net(image)
    return {name: output for name, output in outputs.items() if calls[name] == 1}


class _Found(fx.Interpreter):
    """Runs a program, and keeps for each module the last node made in it with its output."""

    def __init__(self, program: fx.GraphModule, outputs: Mapping[str, _Sample]) -> None:
        super().__init__(program)
        self.outputs = outputs
        self.nodes: dict[str, str] = {}

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        stack = node.meta.get("nn_module_stack") or {}
        module = next((path for path, _ in reversed(stack.values())), "")
        output = self.outputs.get(module)
        if output is not None and isinstance(result, Tensor) and output.alike(result):
            self.nodes[module] = node.name
        return result
