"""A table of what is known of a network or a file, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deblur_export.shown import shown

if TYPE_CHECKING:
    from rich.table import Table

    from deblur_export.manifest_blocks import Fact

MEANINGS = {
    "channels": "of the image and the result",
    "scale": "times as high and wide is the result",
    "input": "name of the image",
    "output": "which of the outputs is the result: its name, or its number from 0",
    "axes": "their order in the image",
    "type": "of the image",
    "batch": "images at once",
    "size": "of the image",
    "opset": "of the original",
    "other operators": "that are not ONNX's own",
    "multiple": "height and width are padded to multiples, pixels",
    "minimum": "smallest side, pixels; smaller images are padded",
    "square": "whether images are padded to squares",
    "padding": "how images are padded, right and bottom",
    "field": "radius of the receptive field, pixels",
    "period": "origins of tiles are multiples, pixels",
    "range": "of the values of its images",
    "output_range": "of the values of its results",
    "colour": "order of its channels",
}


def facts_table(title: str, facts: Mapping[str, Fact]) -> Table:
    """One row a fact: its name, value, whether it is given, found or assumed, and what it means."""
    from rich.table import Table
    from rich.text import Text

    table = Table("fact", "value", "known", "meaning", title=Text(shown(title)))
    for name, fact in facts.items():
        table.add_row(
            Text(shown(name)), Text(_text(name, fact.value)), fact.by, MEANINGS.get(name, "")
        )
    return table


def _text(name: str, value: Any) -> str:
    if name == "field" and value is None:
        return "the whole image"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        parts = (f"{part:g}" if isinstance(part, (int, float)) else shown(part) for part in value)
        return ", ".join(parts) or "none"
    return shown(str(value))
