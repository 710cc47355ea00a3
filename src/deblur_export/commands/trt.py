"""`deblur-export trt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deblur_export.commands.common import PATH, loaded_lines, make_console, steps
from deblur_export.commands.network import network_choice, network_options
from deblur_export.commands.onnx import io_option
from deblur_export.export.engines import options as given
from deblur_export.export.engines.registry import BACKENDS, ENTRIES


@click.command()
@click.argument("file", type=PATH, required=False)
@network_options
@click.option(
    "--fp16", is_flag=True, help="Compute in float16. [the precision of FILE without any of these]"
)
@click.option("--bf16", is_flag=True, help="Compute in bfloat16.")
@click.option(
    "--int8",
    is_flag=True,
    help="Compute in int8; layers that are not quantized are in float32, or with --fp16 or --bf16 "
    "in those. FILE comes from `calibrate`, or is calibrated now on --images or --dataset.",
)
@io_option
@click.option("--images", type=PATH, help="Folder of photos to calibrate on.")
@click.option("--dataset", type=PATH, help="Dataset to calibrate on, as in `calibrate`.")
@click.option(
    "--max-psnr-drop",
    "max_drop",
    type=float,
    help="int8: allowed loss of PSNR in dB.  [default: 0.1]",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help=" ".join(f"{name}: {entry.description}." for name, entry in ENTRIES.items()),
)
@click.option("--min", "smallest", metavar="HxW", help="Smallest image.  [default: 64x64]")
@click.option(
    "--opt", "typical", metavar="HxW", help="Typical image.  [default: --max, without it 720x1280]"
)
@click.option("--max", "largest", metavar="HxW", help="Largest image.  [default: 1440x2560]")
@click.option(
    "--orientation",
    type=click.Choice(given.ORIENTATIONS),
    default=given.ORIENTATIONS[0],
    show_default=True,
    help="Of the images; any: both sides may be as long as the longer one of --max.",
)
@click.option("--size", metavar="HxW", help="The only size, instead of --min, --opt and --max.")
@click.option("--batch", metavar="MIN,OPT,MAX", help="Batch size.  [default: 1,1,1]")
@click.option(
    "--plugins",
    type=PATH,
    multiple=True,
    help="Plugin library of the custom ops.  [default: the packaged one, if it was built]",
)
@click.option("--timing-cache", type=PATH, help="Timing cache to use and to update.")
@click.option("--workspace", type=click.FloatRange(0, min_open=True), help="Builder memory, GiB.")
@click.option("--tf32", is_flag=True, help="Allow TF32 in float32 convolutions.")
@click.option("--version-compatible", is_flag=True, help="Make it load in newer TensorRT as well.")
@click.option("--hardware-compatible", is_flag=True, help="Make it run on any GPU from Ampere on.")
@click.option("--compute-capability", metavar="8.9,12.0", help="GPUs of an rtx engine.")
@click.option("-o", "--output", type=PATH, help="The .engine file to write.")
def trt(
    file: Path | None,
    fp16: bool,
    bf16: bool,
    int8: bool,
    io: str,
    images: Path | None,
    dataset: Path | None,
    max_drop: float | None,
    backend: Any,
    smallest: str | None,
    typical: str | None,
    largest: str | None,
    orientation: Any,
    size: str | None,
    batch: str | None,
    plugins: tuple[Path, ...],
    timing_cache: Path | None,
    workspace: float | None,
    tf32: bool,
    version_compatible: bool,
    hardware_compatible: bool,
    compute_capability: str | None,
    output: Path | None,
    **network: Any,
) -> None:
    """Build a TensorRT engine from FILE and check its precision.

    Without FILE and --model, the only exported .onnx file in this folder is used. If no TensorRT
    can build here, write the strongly typed ONNX file and the manifest of the engine, and print the
    commands for the target machine.
    """
    weights = network["weights"]
    exporting = network["model"] is not None or weights is not None
    if file is not None and exporting:
        raise click.UsageError("FILE and --model or --weights exclude each other")
    if not exporting and any(value not in (None, False, ()) for value in network.values()):
        raise click.UsageError(
            "--variant, --local and --ema belong to --model, --arg and the like to your own network"
        )
    if not int8 and (images, dataset, max_drop) != (None, None, None):
        raise click.UsageError("--images, --dataset and --max-psnr-drop belong to --int8")
    console = make_console()
    with steps(console, "looking for TensorRT") as tell:
        from deblur_export.api.engine import plan_engine
        from deblur_export.api.engine_source import Data, only_artifact
        from deblur_export.api.loading import load_choice
        from deblur_export.artifact import Artifact, read_artifact
        from deblur_export.calibration.calibrate import MAX_DROP
        from deblur_export.commands.progress import PhaseBars
        from deblur_export.models.checkpoint import LoadedModel

        asked = given.precision_from(int8, fp16=fp16, bf16=bf16)
        data = Data(images, dataset, MAX_DROP if max_drop is None else max_drop)
        options = given.BuildOptions(
            sizes=given.parse_sizes(smallest, typical, largest, batch, orientation, size),
            plugins=plugins,
            timing_cache=timing_cache,
            workspace=workspace,
            tf32=tf32,
            half_io=io == "fp16",
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            compute_capabilities=given.parse_capabilities(compute_capability),
        )
        source: Artifact | LoadedModel
        if file is not None:
            source = read_artifact(file)
        elif exporting:
            source = load_choice(network_choice(network), progress=tell)
            for line in loaded_lines(source, weights):
                console.print(line)
        else:
            source = only_artifact(Path(), asked, data)
        plan = plan_engine(source, options, backend, asked, data, output, tell)
    for note in source.notes if isinstance(source, Artifact) else ():
        console.print(f"note: {note}")
    if plan.choice.builder is not None:
        for reason in plan.choice.reasons:
            console.print(reason)
    with PhaseBars(console) as bars:
        outcome = plan.build(bars)
    for line in outcome.lines:
        console.print(line)
