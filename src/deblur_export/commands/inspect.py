"""`deblur-export inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from deblur_export.commands.common import loaded_lines, make_console, steps
from deblur_export.commands.facts import facts_table
from deblur_export.commands.network import network_choice, network_options
from deblur_export.commands.onnx import ShapeType

if TYPE_CHECKING:
    from deblur_export.engine_record import FixedShape


@click.command("inspect")
@network_options
@click.option("--shape", type=ShapeType(), help="An input shape that your network accepts.")
def inspect_command(shape: FixedShape | None, **network: Any) -> None:
    """Find out which images a network accepts and what it gives, without exporting it.

    Every value can be given by the option of its name, here and to the other verbs.
    """
    model, weights = network["model"], network["weights"]
    if model is None and weights is None:
        raise click.UsageError(
            "name a network: --model package.module:callable or path/file.py:Name"
        )
    console = make_console()
    with steps(console, "loading PyTorch") as tell:
        from deblur_export.api.loading import load_choice
        from deblur_export.models.complexity import count_parameters

        loaded = load_choice(network_choice(network), shape, tell)
        parameters = count_parameters(loaded.net)
    console.print(facts_table(loaded.title, loaded.facts))
    console.print(f"{parameters:,} parameters, weights: {loaded.origin}")
    for line in loaded_lines(loaded, weights):
        console.print(line)
