"""A display that shows nothing."""

from __future__ import annotations

import io

from rich.console import Console

from deblur_export.models.training.display import Display


def quiet() -> Display:
    """A display into the void; use as a context."""
    return Display(Console(file=io.StringIO()), "test")
