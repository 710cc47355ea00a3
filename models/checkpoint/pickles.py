"""What a pickle says, without running anything of it.

A pickle may call any function that it names. Here every name that `torch.save` and the usual
training code write is taken by an inert node, which keeps what it was called with and does nothing;
any other name is refused. Tensors are read from those nodes afterwards, by plain code, so that
nothing is allocated for a tensor before its size has been judged.
"""

from __future__ import annotations

import io
import itertools
import pickle
import pickletools
from collections.abc import Iterable
from typing import IO, Any, NoReturn

# What may be named: parts of torch that describe tensors, and packages whose objects stand beside
# the weights in checkpoints of training code (settings, counters, optimizers, histories).
BESIDE_WEIGHTS = frozenset(
    {
        *("_codecs", "argparse", "collections", "copyreg", "datetime", "decimal", "enum"),
        *("fractions", "functools", "numpy", "pathlib", "random", "time", "types", "typing"),
        *("uuid", "addict", "box", "easydict", "lightning", "lightning_fabric"),
        *("lightning_utilities", "ml_collections", "mmcv", "mmengine", "munch", "omegaconf"),
        *("pytorch_lightning", "torchmetrics", "yacs"),
    }
)
BUILTINS = frozenset(
    {
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int"),
        *("list", "long", "object", "range", "set", "slice", "str", "tuple", "unicode", "xrange"),
    }
)
TORCH_PACKAGES = ("torch.amp", "torch.cuda.amp", "torch.optim")
TORCH_MODULES = (
    *("torch", "torch._tensor", "torch._utils", "torch.cuda", "torch.nn.parameter"),
    *("torch.serialization", "torch.storage", "torch.torch_version"),
)
# Opcodes of a pickle; one that calls something counts for many. A network of 20,000 tensors has
# 1.8 million, and takes less than a second.
LARGEST_COST = 6_000_000
COSTS = {
    **dict.fromkeys(("REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "BINPERSID", "OBJ"), 20),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL", "INST"), 1000),  # each makes a class
}
PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


class ForeignObjectError(Exception):
    """A pickle names an object that is neither a tensor nor known to stand beside weights."""


class TooLargeError(Exception):
    """A pickle has more parts than checkpoints have."""


class _Frozen(type):
    """Classes that a pickle cannot change."""

    def __setattr__(cls, name: str, value: object) -> NoReturn:
        raise pickle.UnpicklingError("a pickle cannot change a class")


class Node(dict[Any, Any], metaclass=_Frozen):
    """An object of a pickle that was not made: its name, the arguments of its constructor, and the
    items that were put into it."""

    __slots__ = ("args",)
    path = ""  # module and name; of the class that `_node_type` makes
    args: tuple[Any, ...]

    def __new__(cls, *args: Any, **named: Any) -> Node:
        node = super().__new__(cls)
        node.args = args
        return node

    def __init__(self, *args: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __call__(self, *args: Any, **named: Any) -> NoReturn:
        """A method of an object, which a pickle calls."""
        raise ForeignObjectError(f"what {self.path} gives")

    def append(self, item: object) -> None:
        """As a list would; the item gets its position as key."""
        self[len(self)] = item

    def extend(self, items: Iterable[object]) -> None:
        for item in items:
            self.append(item)

    add = append
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__


class Storage(tuple[Any, ...]):
    """The persistent id of a storage: ("storage", type, key, location, number of elements, ...)."""

    __slots__ = ()


class _Reader(pickle.Unpickler):
    def __init__(self, content: IO[bytes]) -> None:
        super().__init__(content, encoding="utf-8", errors="backslashreplace")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> type[Node]:
        """Called for every name in the pickle, the only way to reach code from it."""
        if not _may_be_named(module, name):
            raise ForeignObjectError(f"{module}.{name}")
        named = {"__slots__": (), "path": f"{module}.{name}"}
        kind: type[Node] = _Frozen("Node", (Node,), named)  # type: ignore[assignment]
        return kind

    def persistent_load(self, pid: object) -> Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError("a persistent id that is not a storage")
        return self.storages.setdefault(str(pid[2]), Storage(pid))


def read_pickle(file: IO[bytes]) -> tuple[Any, dict[str, Storage]]:
    """The content of one pickle in plain dicts, lists, tuples, numbers and texts, `Storage` and
    `Node`; and all storages by their key. The file stands behind the pickle then.

    Raises:
        ForeignObjectError: it names other objects.
        TooLargeError: it has more parts than any checkpoint.
        Exception: many types, for damaged ones.
    """
    start = file.tell()
    end = _measure(file)
    file.seek(start)
    content = io.BytesIO(file.read(end - start))
    file.seek(end)
    reader = _Reader(content)
    return reader.load(), reader.storages


def _measure(file: IO[bytes]) -> int:
    """Where a pickle ends. Nothing of it is made: lengths and numbers are only looked at."""
    cost = 0
    for opcode, argument, _ in pickletools.genops(file):
        cost += COSTS.get(opcode.name, 1)
        if cost > LARGEST_COST:
            raise TooLargeError
        # The memo is an array: a huge index in a short pickle would fill the memory.
        if opcode.name in PUTS and int(argument or 0) > cost:
            raise pickle.UnpicklingError("an index of the memo is out of order")
    return file.tell()


def _may_be_named(module: str, name: str) -> bool:
    root = module.partition(".")[0]
    if root == "torch":
        return module in TORCH_MODULES or module.startswith(TORCH_PACKAGES)
    if root in ("builtins", "__builtin__"):
        return name in BUILTINS
    return root in BESIDE_WEIGHTS


def items_of(value: object) -> list[tuple[object, object]]:
    """Keys and values of a container; empty for anything else."""
    if isinstance(value, dict):
        found = list(dict.items(value))
        if isinstance(value, Node) and value.path == "collections.OrderedDict" and value.args:
            found += _pairs(value.args[0])  # as Python 2 wrote them
        return found
    if isinstance(value, (list, tuple)) and not isinstance(value, Storage):
        return list(zip(itertools.count(), value, strict=False))
    return []


def _pairs(value: object) -> list[tuple[object, object]]:
    if not isinstance(value, list):
        return []
    return [(p[0], p[1]) for p in value if isinstance(p, (list, tuple)) and len(p) == 2]
