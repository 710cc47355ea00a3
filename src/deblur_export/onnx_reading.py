"""Reads ONNX files that other tools may have edited or a disk may have damaged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from deblur_export.errors import DeblurExportError
from deblur_export.file_names import is_file
from deblur_export.shown import shown

DOMAIN = "deblur"  # of the custom ops
# Fields of protobuf that hold names, which tables and messages print.
NAMES = frozenset({"name", "input", "output", "op_type", "domain", "dim_param", "overload"})


def read_onnx(path: Path) -> tuple[onnx.ModelProto, tuple[Path, ...]]:
    """Parse and check an ONNX file, and load the weights that are in other files.

    Returns:
        The model, which holds all of its weights, and the other files in the order of their names.

    Raises:
        DeblurExportError: the file is not ONNX or damaged, a file with weights is missing, or
            custom ops have lost their bodies.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises several unrelated types
        raise DeblurExportError(f"{path}: not an ONNX file, or a damaged one") from error
    try:
        beside = sorted({_location(part) for part in _messages(model) if _is_external(part)})
    except ValueError as error:
        raise DeblurExportError(f"{path}: a damaged ONNX file: {error} is no text") from error
    _load_weights(path, model, beside)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, ValueError for one that is too large
        raise DeblurExportError(f"{path}: a damaged ONNX file: {first_line(error)}") from error
    if lost := lost_bodies(model):
        raise DeblurExportError(
            f"{path}: the tool that edited it dropped the bodies of its custom ops "
            f"({shown(', '.join(lost))}), so that no runtime can compute them; give that tool a "
            "file without custom ops, which deblur-export onnx --inline writes"
        )
    return model, tuple(path.parent / name for name in beside)


def custom_ops(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the custom ops that a graph uses, sorted."""
    return tuple(sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN}))


def lost_bodies(model: onnx.ModelProto) -> list[str]:
    """Names of the custom ops that a graph uses and that have no body in the file."""
    bodies = {body.name for body in model.functions if body.domain == DOMAIN}
    return [name for name in custom_ops(model) if name not in bodies]


def first_line(error: Exception) -> str:
    """The first line of a library's message, fit for a line of ours."""
    lines = str(error).strip().splitlines()
    return shown(lines[0]) if lines else type(error).__name__


@contextlib.contextmanager
def graph_errors(path: Path) -> Iterator[None]:
    """Turns what the libraries raise about the graph of a file into one line.

    Raises:
        DeblurExportError: the graph could not be used, though ONNX's checker passed it.
    """
    try:
        yield
    except (DeblurExportError, MemoryError):
        raise
    except Exception as error:  # of onnx, onnx-ir and ONNX Runtime, all of several types
        if os.environ.get("DEBLUR_EXPORT_TRACEBACK"):
            raise
        raise DeblurExportError(
            f"{path}: its graph cannot be used: {type(error).__name__}: {first_line(error)}; the "
            "file is damaged, or a tool has changed it: export it again"
        ) from error


def _load_weights(path: Path, model: onnx.ModelProto, beside: list[str]) -> None:
    for name in beside:
        if not is_file(path.parent / name):
            raise DeblurExportError(
                f"{path}: its weights are in {shown(name)}, which is not beside it; copy both"
            )
    try:
        load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # ValidationError, OSError, ValueError
        raise DeblurExportError(
            f"{path}: its weights in {shown(', '.join(beside))} cannot be read: {first_line(error)}"
        ) from error


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages inside.

    Raises:
        ValueError: a text inside is not UTF-8, which protobuf gives as bytes, or a name has
            characters that a terminal would obey; the message is the name of the field.
    """
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if hasattr(value, "ListFields") else value:
                yield from _messages(part)
        elif field.type == field.TYPE_STRING:
            texts = (value,) if isinstance(value, (str, bytes)) else value
            name = field.name in NAMES
            if not all(isinstance(t, str) and (t.isprintable() or not name) for t in texts):
                raise ValueError(field.name)


def _is_external(message: Any) -> bool:
    return isinstance(message, onnx.TensorProto) and uses_external_data(message)


def _location(tensor: Any) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
