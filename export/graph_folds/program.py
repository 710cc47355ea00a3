"""A captured program that graph folds edit: its ATen graph and two sets of float64 weights.

A fold is a function of the weights: it sees which nodes are constants and their shapes, and gives
`Program.computed` a function that makes the new constant of the old ones. That is applied to the
trained weights and to a copy in which every 0 and 1 is moved away, so no fold can depend on values,
and a wrong fold shows on one of the two: a layer scale that is still 0 would prove anything.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    TensorArgument,
)
from torch.fx.node import map_aggregate, map_arg

from deblur_export.export.float64 import WIDER
from deblur_export.export.graph_folds.functional import make_functional

NARROWER = {wide: narrow for narrow, wide in WIDER.items()}
SCOPED = "nn_module_stack"


class Program:
    """A copy of the graph of a captured program, edited in place, with its weights in float64.

    Args:
        captured: a program of one image and one output, as `capture` gives it; it is not changed.

    Attributes:
        graph: the ATen graph, whose parameters, buffers and constants are placeholders.
        image: the placeholder of the image.
        weights: the trained weights, and the copy of them that is moved away from 0 and 1; each by
            the name of its placeholder.
    """

    def __init__(self, captured: ExportedProgram) -> None:
        self.captured = captured
        self.module = fx.GraphModule(captured.graph_module, copy.deepcopy(captured.graph))
        self.graph: fx.Graph = self.module.graph
        for node, own in zip(self.graph.nodes, captured.graph.nodes, strict=True):
            node.name = own.name  # a copy renames those that are functions of Python, as "input"
        nodes = {node.name: node for node in self.graph.nodes if node.op == "placeholder"}
        self.original: dict[str, Tensor] = {}
        self.specs: dict[str, InputSpec] = {}
        self.image: fx.Node
        for spec in captured.graph_signature.input_specs:
            name = spec.arg.name
            if spec.kind == InputKind.USER_INPUT:
                self.image = nodes[name]
                continue
            own = captured.state_dict if spec.target in captured.state_dict else captured.constants
            value = own[str(spec.target)]
            if isinstance(value, Tensor):
                self.original[name] = value.detach()
                self.specs[name] = spec
        generator = torch.Generator().manual_seed(0)
        wide = {name: _wide(value) for name, value in self.original.items()}
        self.weights: tuple[dict[str, Tensor], dict[str, Tensor]] = (
            wide,
            {name: _moved(value, generator) for name, value in wide.items()},
        )
        self.sources = {name: str(spec.target) for name, spec in self.specs.items()}
        mode = detect_fake_mode([node.meta.get("val") for node in self.graph.nodes])
        assert mode is not None
        self.fake: FakeTensorMode = mode
        self.written = make_functional(self.graph)

    def run(self, weights: Mapping[str, Tensor], image: Tensor) -> Tensor:
        """The float64 output for a float64 image."""
        (restored,) = _Float64(self.module, weights).run(image)
        return cast(Tensor, restored)

    def is_constant(self, value: object) -> bool:
        """Whether this is the node of a parameter, buffer or other constant tensor."""
        return isinstance(value, fx.Node) and value.name in self.weights[0]

    def is_written(self, node: fx.Node) -> bool:
        """Whether something writes into the memory of a node, so that its value changes."""
        return node in self.written

    def value(self, node: fx.Node) -> Tensor:
        """The trained value of a constant; a fold may look at its shape and dtype only."""
        return self.weights[0][node.name]

    def equal(self, first: fx.Node, second: fx.Node) -> bool:
        """Whether two constants are equal in both sets of weights, so not by chance."""
        return first is second or all(
            torch.equal(own[first.name], own[second.name]) for own in self.weights
        )

    def computed(self, function: Callable[..., Tensor], *constants: fx.Node) -> fx.Node:
        """A new constant, the function of constants, named after the first of them."""
        values = [
            function(*(own[node.name] for node in constants)).contiguous() for own in self.weights
        ]
        with self.graph.inserting_before(self.image):
            node = self.graph.placeholder(f"folded_{len(self.sources)}")
        for own, value in zip(self.weights, values, strict=True):
            own[node.name] = value
        self.sources[node.name] = self.sources[constants[0].name]
        narrow = values[0].to(NARROWER.get(values[0].dtype, values[0].dtype))
        with self.fake:
            node.meta["val"] = self.fake.from_tensor(narrow, static_shapes=True)
        return node

    def bias_of(self, bias: fx.Node, weight: fx.Node) -> None:
        """Name a new bias after the weight of a layer that had none."""
        self.sources[bias.name] = self.sources[weight.name].removesuffix("weight") + "bias"

    def call(
        self, target: Any, arguments: Sequence[Any], like: fx.Node, before: fx.Node | None = None
    ) -> fx.Node:
        """Insert a call before a node (by default `like`), in the module of `like`."""
        with self.graph.inserting_before(before or like):
            node = self.graph.call_function(target, tuple(arguments))
        for key in (SCOPED, "stack_trace", "source_fn_stack", "from_node", "torch_fn", "custom"):
            if key in like.meta:
                node.meta[key] = like.meta[key]
        self.infer(node)
        return node

    def infer(self, node: fx.Node) -> None:
        """Set the shape and dtype of a call from those of its inputs."""
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
        with self.fake:
            node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Use `new` wherever `old` is used, and remove what only `old` needed."""
        old.replace_all_uses_with(new)
        self.remove(old)

    def remove(self, node: fx.Node) -> None:
        """Remove a call that nothing uses, and its inputs that nothing else uses."""
        if node.op == "placeholder" or node.users:
            return
        before = node.all_input_nodes
        self.graph.erase_node(node)
        for other in before:
            self.remove(other)

    def name(self, node: fx.Node) -> str:
        """The name of a constant in the network, or the path of the module that made a node."""
        if node.name in self.sources:
            return self.sources[node.name]
        return next((path for path, _ in reversed(node.meta.get(SCOPED, {}).values())), "")

    def live(self) -> dict[str, Tensor]:
        """The trained values of the constants that the graph reads, by placeholder."""
        used = (node for node in self.graph.nodes if node.op == "placeholder" and node.users)
        return {n.name: self.weights[0][n.name] for n in used if n.name in self.weights[0]}

    def rounded(self) -> ExportedProgram:
        """The program with its weights rounded once to float32, and without unused ones."""
        live, specs = self.live(), list[InputSpec]()
        state: dict[str, Any] = {}
        constants: dict[str, Any] = {}
        taken = {self.sources[name] for name in live if name in self.original}
        for node in [node for node in self.graph.nodes if node.op == "placeholder"]:
            if node.name in live:
                spec = self.specs.get(node.name)
                if spec is None:
                    spec = self._new_spec(node, taken)
                    value = live[node.name]
                    value = value.to(NARROWER.get(value.dtype, value.dtype))
                else:
                    value = self.original[node.name]
                if spec.kind == InputKind.PARAMETER:
                    value = torch.nn.Parameter(value, requires_grad=False)
                kept = constants if _is_outside_state(spec) else state
                kept[str(spec.target)] = value
                specs.append(spec)
            elif node.name in self.weights[0]:
                self.graph.erase_node(node)
            else:
                own = self.captured.graph_signature.input_specs
                specs.append(next(s for s in own if s.arg.name == node.name))
        others = {k: v for k, v in self.captured.constants.items() if not isinstance(v, Tensor)}
        self.graph.lint()
        self.module.recompile()
        (outputs,) = self.graph.output_node().args
        assert isinstance(outputs, tuple)
        signature = ExportGraphSignature(
            specs,
            [
                dataclasses.replace(spec, arg=TensorArgument(name=node.name))
                for spec, node in zip(
                    self.captured.graph_signature.output_specs, outputs, strict=True
                )
            ],
        )
        return ExportedProgram(
            root=self.module,
            graph=self.graph,
            graph_signature=signature,
            state_dict=state,
            range_constraints=self.captured.range_constraints,
            module_call_graph=self.captured.module_call_graph,
            example_inputs=self.captured.example_inputs,
            constants={**others, **constants},
            verifiers=self.captured.verifiers,
        )

    def _new_spec(self, node: fx.Node, taken: set[str]) -> InputSpec:
        target = source = self.sources[node.name]
        number = 0
        while target in taken:
            number += 1
            target = f"{source}_{number}"
        taken.add(target)
        is_float = self.weights[0][node.name].is_floating_point()
        kind = InputKind.PARAMETER if is_float else InputKind.BUFFER
        persistent = None if is_float else True
        return InputSpec(kind, TensorArgument(name=node.name), target, persistent)


def _is_outside_state(spec: InputSpec) -> bool:
    return spec.kind == InputKind.CONSTANT_TENSOR or (
        spec.kind == InputKind.BUFFER and not spec.persistent
    )


def _wide(value: Tensor) -> Tensor:
    return value.to(WIDER.get(value.dtype, value.dtype))


def _moved(value: Tensor, generator: torch.Generator) -> Tensor:
    """A copy whose zeros and ones are moved up by 0.1 to 0.5."""
    if not value.is_floating_point():
        return value
    by = 0.1 + 0.4 * torch.rand(value.shape, generator=generator, dtype=value.dtype)
    return torch.where((value == 0) | (value == 1), value + by, value)


class _Float64(fx.Interpreter):
    """Runs a graph with every float32 that is written into it widened to float64."""

    def __init__(self, module: fx.GraphModule, weights: Mapping[str, Tensor]) -> None:
        super().__init__(module)
        self.values = weights

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        raise AssertionError("placeholders are read in run_node")

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            own = self.values.get(n.name)
            return next(self.args_iter) if own is None else own
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is torch.ops.aten._assert_tensor_metadata.default:
            return None
        return super().call_function(target, *_widened((args, kwargs)))


def run_call(node: fx.Node, value_of: Callable[[fx.Node], Any]) -> Any:
    """The float64 result of a call whose inputs are given."""
    args, kwargs = _widened(map_arg((node.args, node.kwargs), value_of))
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _widened(values: Any) -> Any:
    return map_aggregate(values, lambda v: WIDER.get(v, v) if isinstance(v, torch.dtype) else v)
