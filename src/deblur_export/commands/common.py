"""What several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

RUNTIMES = ("auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt")
PRECISIONS = ("f32", "bf16", "f16")
PATH = click.Path(path_type=Path)
plugins_option = click.option(
    "--plugins", type=PATH, multiple=True, help="Plugin library that an engine was built with."
)
precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="f32",
    show_default=True,
    help="Arithmetic of OpenVINO; ONNX Runtime does as the graph says.",
)


def make_console() -> Console:
    """Where a verb prints."""
    from rich.console import Console

    # File names may hold brackets; nothing printed here is markup.
    return Console(soft_wrap=True, markup=False)
