"""What an op's specification says about one tensor, one attribute, and one native function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

TensorType = Literal["T", "tensor(float)", "tensor(int64)"]

# What "T" may be in a file.
FLOAT_TYPES = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]

# Why an input stays float32 in a file of lower precision.
DECIDES = "decides: rounding would turn choices"
POSITIONS = "coordinates: float16 holds pixels beyond 1024 to one pixel only"
SPECTRUM = "a spectrum: its values are sums over an image, and span more than float16 does"
SCAN = "steps and rates of a scan: they stand in an exponent and add up over its length"


@dataclass(frozen=True)
class TensorSpec:
    """An input or the output of an op.

    Attributes:
        type: "T" follows the precision of a file (one of `FLOAT_TYPES`); "tensor(float)" stays
            float32 in any; "tensor(int64)" holds pixel indices, or a size.
        shape: symbolic, see `shapes`; empty for a size, whose name is a symbol too.
        doc: what it holds, with units.
        fp32: why it stays float32; given exactly for inputs of type "tensor(float)".
        optional: whether a node may leave it out.
        channels_last: whether the CPU kernel also takes it with the channels behind the pixels
            (NHWC; [N, L, D] for sequences), then as float32 or bfloat16. The output goes with it.
    """

    type: TensorType
    shape: str
    doc: str
    fp32: str = ""
    optional: bool = False
    channels_last: bool = False


@dataclass(frozen=True)
class AttributeSpec:
    """An integer attribute of an op.

    Attributes:
        doc: what it means.
        values: those that it may have; empty for any positive one.
        equals: the size that it repeats, an expression of symbols: ONNX wants it static, while
            the shapes of a file are dynamic.
        optional: whether a node may leave it out; it is 0 then.
    """

    doc: str
    values: tuple[int, ...] = ()
    equals: str = ""
    optional: bool = False


# What the sizes among the arguments of a native function mean, where it does not say otherwise.
_SIZES: Mapping[str, str] = {
    "n": "N",
    "c": "C",
    "h": "H",
    "w": "W",
    "d": "D",
    "states": "S",
    "length": "L",
    "outputs": "O",
    "pixels": "P",
    "planes": "N*C",
}


@dataclass(frozen=True)
class NativeFunction:
    """A C function that computes an op.

    Attributes:
        name: its symbol.
        arguments: their names in csrc/deblur_cpu.h or csrc/deblur_cuda.h, separated by spaces.
            Those of tensors and attributes are the op's own; a tensor that the op does not have
            is NULL.
        workspace: the arguments of the function `name` + "_workspace", which tells how many bytes
            of workspace a call needs; empty where there is none.
        sizes: the meaning of arguments that are sizes, as expressions of symbols, where it is not
            the usual one.
    """

    name: str
    arguments: str
    workspace: str = ""
    sizes: Mapping[str, str] = field(default_factory=dict, hash=False)

    def size(self, argument: str) -> str | None:
        """The expression for an argument that is a size; None for another argument."""
        return self.sizes.get(argument, _SIZES.get(argument))
