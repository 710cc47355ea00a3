"""The shapes of what an artifact takes and gives."""

from __future__ import annotations

from typing import Literal

LARGEST_SIDE = 16384  # pixels, of what can be exported

# Batch, channels, height and width; a name if the file accepts any size.
Shape = tuple[int | Literal["batch"], int, int | Literal["height"], int | Literal["width"]]
# Of an output that is larger than the input, free sizes have names of their own: in ONNX,
# dimensions of the same name are equal.
OutputShape = tuple[
    int | Literal["batch"],
    int,
    int | Literal["height", "scaled_height"],
    int | Literal["width", "scaled_width"],
]


def enlarged(shape: Shape, scale: int) -> OutputShape:
    """The shape of the output for an input of `shape`."""
    n, c, h, w = shape
    if scale == 1:
        return shape
    return (
        n,
        c,
        h * scale if isinstance(h, int) else "scaled_height",
        w * scale if isinstance(w, int) else "scaled_width",
    )


def check_shape(shape: OutputShape, largest: int = LARGEST_SIDE) -> None:
    """Raise ValueError for sizes outside of 1..`largest`, and for one side that is free alone."""
    if not all(1 <= size <= largest for size in shape if isinstance(size, int)):
        raise ValueError(f"shape has sizes below 1 or above {largest}")
    if isinstance(shape[2], int) != isinstance(shape[3], int):
        raise ValueError("shape has one side fixed and the other free")


def check_sizes(least: int, **values: int) -> None:
    """Raise ValueError, which names the value, for those outside of `least`..LARGEST_SIDE."""
    for name, value in values.items():
        if not least <= value <= LARGEST_SIDE:
            raise ValueError(f"{name} is below {least} or above {LARGEST_SIDE}")
