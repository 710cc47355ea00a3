"""`deblur-export bench`."""

from __future__ import annotations

from typing import Any

import click

from deblur_export.commands.common import PATH, PrecisionType, make_console, steps
from deblur_export.commands.network import network_choice, network_options
from deblur_export.export.runtimes.registry import ENTRIES
from deblur_export.precision import PRECISIONS

CANDIDATES = (
    *("torch-eager", "torch-native", "torch-compile"),
    *(name for entry in ENTRIES.values() for name in entry.bench_names),
)
TIMED = tuple(name for name, precision in PRECISIONS.items() if precision.timed)


@click.command()
@click.argument("files", type=PATH, nargs=-1, metavar="[FILE.onnx]...")
@network_options
@click.option("--reference", metavar="NAME[:VARIANT]", help="Second network to measure as well.")
@click.option("--size", "sizes", multiple=True, metavar="HxW", help="Image size; repeat. [256x256]")
@click.option(
    "--coverage",
    "coverages",
    multiple=True,
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Force a mask that covers this percentage of the pixels (M2AENet); repeat.",
)
@click.option(
    "--candidates", multiple=True, metavar="NAME", help=f"Repeat. [{', '.join(CANDIDATES)}]"
)
@click.option("--precision", "precisions", multiple=True, type=PrecisionType(TIMED), help="[fp32]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [physical cores]")
@click.option("--repeats", type=click.IntRange(min=1), help="Rounds. [as many as fit --seconds]")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    help="Time for the rounds of one size and coverage; 3 to 25 rounds.",
)
@click.option("--profile", is_flag=True, help="Also time the operators of the exported files.")
@click.option("--json", "json_path", type=PATH, help="Write all measurements as JSON.")
@click.option("--plot", "plot_path", type=PATH, help="Plot latency against size and coverage.")
def bench(**options: Any) -> None:
    """Measure exported files, or a network, in comparison with PyTorch and the plain
    torch.onnx.export on every runtime.

    Each candidate runs in its own process with the same number of threads; their runs are
    interleaved.
    """
    console = make_console()
    with steps(console, "loading PyTorch") as tell:
        from deblur_export.export.timing.command import Options
        from deblur_export.export.timing.command import bench as run_bench

        choice = network_choice(options)
        run_bench(Options(network=choice, **options), console, tell)
