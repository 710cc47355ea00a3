"""The interface of a loaded file, which computes arrays by name from arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError

FLOATS: Mapping[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
Arrays = Mapping[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]


class Session(Protocol):
    """A loaded file. `title` names the backend, its version and its precision for reports; `notes`
    are for the user."""

    title: str
    notes: tuple[str, ...]

    def run(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        """Compute the outputs by name from the inputs by name.

        All arrays are float32, also for a file whose input and output are float16.

        Raises:
            DeblurExportError: the backend failed, for lack of memory for instance.
        """
        ...


def typed(feed: Arrays, types: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The inputs in the element types that the file declares."""
    return {name: np.asarray(value, types.get(name)) for name, value in feed.items()}


def widened(value: Any) -> NDArray[Any]:
    """A float16 array as float32; other arrays unchanged."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def failed(name: str, feed: Arrays, reason: str) -> DeblurExportError:
    """The error of a backend, with its name and the shapes of the inputs, in one line."""
    shapes = ", ".join("x".join(map(str, value.shape)) for value in feed.values())
    return DeblurExportError(
        f"{name} failed on {shapes}, perhaps for lack of memory; try --tile 512 ({reason})"
    )
