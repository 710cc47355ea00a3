"""Rewrites an exported program so that no complex number appears in it.

torch.onnx writes complex tensors with one more axis, and torch.fft as DFT nodes, which TensorRT
does not have and OpenVINO loads in the plainest cases only. Here each complex value of the program
becomes two real ones, and each transform an op of ours, whose body every runtime has.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.pairs.arithmetic import Arithmetic, Pair, pair_of_number
from deblur_export.export.pairs.emitter import Emitter, aten, rank
from deblur_export.export.pairs.transforms import Transforms, transform_of
from deblur_export.shown import shown

# Operators that move values or are linear in their first argument: each part by itself.
EACH = frozenset(
    {
        "view",
        "reshape",
        "permute",
        "transpose",
        "unsqueeze",
        "squeeze",
        "slice",
        "select",
        "clone",
        "contiguous",
        "flatten",
        "expand",
        "repeat",
        "roll",
        "flip",
        "alias",
        "detach",
        "unflatten",
        "movedim",
        "swapaxes",
        "swapdims",
        "moveaxis",
        "t",
        "index",
        "constant_pad_nd",
        "pad",
        "sum",
        "mean",
        "narrow",
        "fft_fftshift",
        "fft_ifftshift",
        "lift_fresh_copy",
        "split",
        "chunk",
        "split_with_sizes",
        "unbind",
        "tile",
        "mT",
        "adjoint_",
        "numpy_T",
        "index_select",
        "_unsafe_view",
        "unsafe_split",
        "unsafe_chunk",
        "view_as",
        "expand_as",
    }
)
PRODUCTS = frozenset({"matmul", "bmm", "mm", "einsum"})
SAME = frozenset({"resolve_conj", "resolve_neg"})
# Largest difference between the program before and after, relative to the largest output.
TOLERANCE = 1e-4


def without_complex_numbers(program: ExportedProgram) -> bool:
    """Rewrite a program in place; returns whether there was anything to rewrite.

    Raises:
        DeblurExportError: an operator on complex numbers has no translation; the line that uses it
            is named.
        CheckFailedError: the rewritten program computes something else.
    """
    if not any(_is_complex(node) for node in program.graph.nodes):
        return False
    image = torch.rand(_image_shape(program), generator=torch.Generator().manual_seed(0))
    before = program.module(check_guards=False)(image)
    _Rewriting(program).run()
    program.graph_module.recompile()
    after = program.module(check_guards=False)(image)
    error = ((after - before).abs().max() / before.abs().max().clamp_min(1e-30)).item()
    if not error <= TOLERANCE:
        raise CheckFailedError(
            f"complex numbers as pairs of real ones change the network by {error:.1e} of its "
            "largest output; write the network with torch.view_as_real or .real and .imag"
        )
    return True


def _image_shape(program: ExportedProgram) -> tuple[int, ...]:
    assert program.example_inputs is not None
    (image,) = program.example_inputs[0]
    return tuple(image.shape)


def _is_complex(node: Node) -> bool:
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(v, torch.Tensor) and v.is_complex() for v in values)


class _Rewriting:
    def __init__(self, program: ExportedProgram) -> None:
        self.program, self.graph = program, program.graph_module.graph
        self.emit = Emitter(program)
        self.arithmetic = Arithmetic(self.emit)
        self.transforms = Transforms(self.emit, self.arithmetic)
        self.pairs: dict[Node, Pair | list[Pair]] = {}

    def run(self) -> None:
        old = []
        for node in list(self.graph.nodes):
            if node.op == "placeholder" and _is_complex(node):
                self._parameter(node)
            elif node.op == "output" and any(n in self.pairs for n in node.all_input_nodes):
                raise DeblurExportError("the network returns complex numbers, no image")
            elif node.op == "call_function" and self._concerns(node):
                old.append(node)
                self.emit.place = node
                self._replace(node, self._result(node))
        for node in reversed(old):
            if not node.users:
                self.graph.erase_node(node)
        self.graph.eliminate_dead_code()

    def _concerns(self, node: Node) -> bool:
        return _is_complex(node) or any(n in self.pairs for n in node.all_input_nodes)

    def _replace(self, node: Node, result: Any) -> None:
        if isinstance(result, Node):
            node.replace_all_uses_with(result)
        elif result is not None:
            self.pairs[node] = result

    def _parameter(self, node: Node) -> None:
        """A complex parameter is stored as its real view."""
        signature = self.program.graph_signature
        names = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        name = names.get(node.name)
        held = self.program.state_dict if name in self.program.state_dict else None
        store: Any = held if held is not None else self.program.constants
        if name is None or name not in store:
            raise DeblurExportError("the network takes complex numbers, no image")
        real = torch.view_as_real(store[name].detach().resolve_conj()).contiguous()
        store[name] = torch.nn.Parameter(real, False) if held is not None else real
        assert self.emit.fake_mode is not None
        node.meta["val"] = self.emit.fake_mode.from_tensor(real, static_shapes=True)
        after = next(n for n in self.graph.nodes if n.op != "placeholder")
        self.emit.place = after
        self.pairs[node] = self._of_view(node)

    def _of_view(self, node: Node) -> Pair:
        last = rank(node) - 1
        re, im = (self.emit.call(aten.select.int, node, last, index) for index in (0, 1))
        return Pair(re, im)

    def _pair(self, value: Any) -> Pair:
        if isinstance(value, Node):
            found = self.pairs.get(value, Pair(value))
            assert isinstance(found, Pair)
            return found
        return pair_of_number(complex(value))

    def _result(self, node: Node) -> Any:
        """What takes the place of a node: a pair, several, or a real node."""
        if node.target is operator.getitem:
            source = self.pairs[node.args[0]]  # type: ignore[index]
            assert isinstance(source, list)
            return source[node.args[1]]  # type: ignore[index]
        packet = getattr(node.target, "overloadpacket", None)
        name = getattr(packet, "__name__", str(node.target))
        plain = name.rstrip("_") if name not in ("adjoint_",) else name
        rule = self._rule(plain, node)
        if rule is None:
            raise DeblurExportError(
                f"{shown(name)} on complex numbers has no translation{_place(node)}; write it with "
                "real tensors (.real, .imag, torch.view_as_real)"
            )
        result = rule()
        if name.endswith("_") and isinstance(result, Pair):  # in place
            self.pairs[node.args[0]] = result  # type: ignore[index]
        return result

    def _rule(self, name: str, node: Node) -> Callable[[], Any] | None:
        calc, args = self.arithmetic, node.args
        pair = self._pair
        binary: dict[str, Callable[[Pair, Pair], Pair]] = {
            "add": calc.add,
            "sub": calc.sub,
            "mul": calc.mul,
            "multiply": calc.mul,
            "div": calc.div,
            "true_divide": calc.div,
        }
        unary: dict[str, Callable[[Pair], Any]] = {
            "neg": calc.neg,
            "_conj": calc.conj,
            "conj": calc.conj,
            "conj_physical": calc.conj,
            "abs": calc.abs,
            "angle": calc.angle,
            "exp": calc.exp,
            "real": calc.real,
            "imag": lambda x: calc.dense(x)[1],
            "view_as_real": lambda x: self.emit.call(aten.stack.default, list(calc.dense(x)), -1),
        }
        if name in binary and not node.kwargs and len(args) == 2:
            return lambda: binary[name](pair(args[0]), pair(args[1]))
        if name in unary:
            return lambda: unary[name](pair(args[0]))
        if name in SAME:
            return lambda: pair(args[0])
        if name == "complex":
            return lambda: Pair(*args)  # type: ignore[arg-type]
        if name == "polar":
            return lambda: calc.polar(*args)  # type: ignore[arg-type]
        if name == "view_as_complex":
            return lambda: self._of_view(args[0])  # type: ignore[arg-type]
        if "fft" in name and name not in EACH and "hfft" not in name:
            return lambda: self._transform(name, node)
        if name in ("to", "_to_copy", "type_as", "_assert_tensor_metadata"):
            return lambda: self._converted(name, node)
        if name in EACH:
            return lambda: self._each(node)
        if name in ("cat", "concat", "stack"):
            return lambda: self._joined(node)
        if name in PRODUCTS:
            return lambda: self._product(name, node)
        return None

    def _transform(self, name: str, node: Node) -> Pair | Node:
        x = self._pair(node.args[0])
        rank_ = rank(self.arithmetic.real(x))
        wanted = transform_of(name, x, node.args[1:], node.kwargs, rank_)
        return self.transforms.apply(wanted, x)

    def _converted(self, name: str, node: Node) -> Pair | Node | None:
        if name.startswith("_assert"):
            return None
        value, x = node.meta["val"], self._pair(node.args[0])
        dtype = value.real.dtype if value.is_complex() else value.dtype
        parts = [
            self.emit.call(aten.to.dtype, part, dtype) if isinstance(part, Node) else part
            for part in (x.re, x.im)
        ]
        if value.is_complex():
            return Pair(*parts)
        return self.arithmetic.real(Pair(*parts))

    def _each(self, node: Node) -> Pair | list[Pair]:
        """The operator on both parts."""
        x = self._pair(node.args[0])
        results = [
            self.emit.call(node.target, part, *node.args[1:], **node.kwargs)  # type: ignore[arg-type]
            for part in self.arithmetic.dense(x)
        ]
        value = results[0].meta["val"]
        if not isinstance(value, list | tuple):
            return Pair(*results)
        return [Pair(*(self.emit.item(r, i) for r in results)) for i in range(len(value))]

    def _joined(self, node: Node) -> Pair:
        tensors: Sequence[Any] = node.args[0]  # type: ignore[assignment]
        parts = zip(*(self.arithmetic.dense(self._pair(t)) for t in tensors), strict=True)
        re, im = (
            self.emit.call(node.target, list(part), *node.args[1:], **node.kwargs)  # type: ignore[arg-type]
            for part in parts
        )
        return Pair(re, im)

    def _product(self, name: str, node: Node) -> Pair | None:
        equation = node.args[:1] if name == "einsum" else ()
        factors: Any = node.args[1] if name == "einsum" else node.args
        if len(factors) != 2:
            raise DeblurExportError(f"an einsum of {len(factors)} complex tensors{_place(node)}")

        def product(a: Any, b: Any) -> Any:
            if a is None or b is None:
                return None
            both = ([a, b],) if name == "einsum" else (a, b)
            return self.emit.call(node.target, *equation, *both)  # type: ignore[arg-type]

        x, y = map(self._pair, factors)
        return self.arithmetic.bilinear(product, x, y)


def _place(node: Node) -> str:
    """The line of code that a node comes from, as " at FILE:LINE"."""
    trace = str(node.meta.get("stack_trace") or "")
    lines = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    if not lines:
        return ""
    file, line = lines[-1].split(",")[:2]
    return f" at {shown(file.removeprefix('File ').strip(chr(34)))}:{line.strip().split()[-1]}"
