"""A display that shows nothing."""

from __future__ import annotations

import io

from rich.console import Console

from deblur_export.models.training.display import Display


def quiet() -> Display:
    """A display that prints nothing; use as a context manager."""
    return Display(Console(file=io.StringIO()), "test")
