"""The command line. Heavy imports stay inside each verb, so that --help is instant."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from deblur_export import __version__
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.models import NAMES

if TYPE_CHECKING:
    from rich.console import Console

    from deblur_export.export.manifest import Artifact
    from deblur_export.export.to_onnx import Shape

TARGETS = ("portable", "ort", "rtx")
RUNTIMES = ("onnxruntime", "openvino")
PRECISIONS = ("f32", "bf16", "f16")
PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="deblur-export")
def cli() -> None:
    """Trained image-deblurring networks to ONNX, with proof that they compute the same thing."""


class ShapeType(click.ParamType):  # type: ignore[type-arg]
    """NxCxHxW, as in 1x3x720x1280."""

    name = "NxCxHxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> Shape:
        parts = str(value).lower().split("x")
        if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
            self.fail(f"'{value}' is not four sizes like 1x3x720x1280", param, ctx)
        n, c, h, w = map(int, parts)
        if c != 3:
            self.fail(f"'{value}': images have 3 channels (RGB)", param, ctx)
        if not all(0 < size <= 16384 for size in (n, h, w)):
            self.fail(f"'{value}': sizes must lie between 1 and 16384", param, ctx)
        return n, c, h, w


@cli.command("onnx")
@click.option("--model", help=f"Network: {', '.join(NAMES)}. Optional with a checkpoint.")
@click.option("--variant", help="Variant of the network; see `deblur-export models`.")
@click.option("--weights", help="Checkpoint (.pth, .pt, .ckpt, .safetensors), demo or random:SEED.")
@click.option(
    "--local",
    is_flag=True,
    help="Pool around each pixel instead of over the image (TLC), as published scores do.",
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="portable",
    show_default=True,
    help="portable: standard operators that every runtime has. ort: the fastest on ONNX Runtime. "
    "rtx: for TensorRT for RTX.",
)
@click.option("--dynamic", is_flag=True, help="Dynamic batch, height and width (the default).")
@click.option("--shape", type=ShapeType(), help="Fixed input shape instead.")
@click.option("--no-reparam", is_flag=True, help="Export the network as trained, nothing folded.")
@click.option("-o", "--output", type=PATH, help="The .onnx file to write.")
def onnx_command(
    model: str | None,
    variant: str | None,
    weights: str | None,
    local: bool,
    target: Any,
    dynamic: bool,
    shape: Shape | None,
    no_reparam: bool,
    output: Path | None,
) -> None:
    """Export a network to one ONNX file and its manifest (FILE.json)."""
    if dynamic and shape:
        raise click.UsageError("--dynamic and --shape exclude each other")
    if model is None and weights is None:
        raise click.UsageError(
            f"name a network with --model ({', '.join(NAMES)}) or give --weights"
        )
    console = _console()
    with console.status("loading PyTorch") as status:
        from deblur_export.export.checkpoint import default_weights, load_model
        from deblur_export.export.pipeline import ExportOptions, default_path, export_onnx

        source = weights or default_weights(model, variant)
        loaded = load_model(model, variant, source, local)
        if weights is None:
            random = "" if source == "demo" else ", so the result will not deblur"
            console.print(f"no --weights: using {source}{random}")
        if model is None:
            console.print(f"recognised {loaded.title} in {weights}")
        options = ExportOptions(target=target, shape=shape, reparam=not no_reparam)
        path = output or default_path(loaded, options)
        artifact = export_onnx(loaded, options, path, status.update)
    _print_export(console, artifact)


def _print_export(console: Console, artifact: Artifact) -> None:
    manifest, path = artifact.manifest, artifact.path
    for report in manifest["passes"]:
        if report["changed"]:
            console.print(
                f"  {report['name']}: {len(report['changed'])} places, float64 error "
                f"{report['max_error']:.0e}"
            )
    ops = ", ".join(manifest["custom_ops"]) or "none"
    shape = "x".join(map(str, manifest["input"]["shape"]))
    console.print(
        f"{path}: {manifest['file']['bytes'] / 1e6:.1f} MB, {artifact.title}, opset "
        f"{manifest['opset']}, input {shape}, custom ops with bodies: {ops}"
    )
    console.print(f"next: deblur-export verify {path}")


@cli.command()
@click.argument("file", type=PATH)
@click.option("--images", type=PATH, help="Folder of photos to compare on as well.")
@click.option("--weights", help="Where the weights are now, if they moved since the export.")
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="onnxruntime",
    show_default=True,
    help="What runs FILE, on the CPU.",
)
@click.option("--float64", is_flag=True, help="Also report both errors against float64.")
@click.option("--json", "json_path", type=PATH, help="Write the report as JSON.")
@click.option("--html", "html_path", type=PATH, help="Write the report as one HTML page.")
def verify(
    file: Path,
    images: Path | None,
    weights: str | None,
    runtime: Any,
    float64: bool,
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Prove that FILE computes what its PyTorch network computes. Exit code 0 or 1."""
    console = _console()
    with console.status("loading PyTorch") as status:
        from deblur_export.export.atomic import atomic_path
        from deblur_export.export.cases import photo_cases, random_cases
        from deblur_export.export.manifest import read_artifact, record_parity
        from deblur_export.export.report import render_table, to_json
        from deblur_export.export.report_html import to_html
        from deblur_export.export.verify import reference_model
        from deblur_export.export.verify import verify as run_verify
        from deblur_export.models.blocks.naf import tlc_window

        artifact = read_artifact(file)
        shape = artifact.manifest["input"]["shape"]
        window = tlc_window(artifact.manifest["arguments"].get("train_size"), 0)
        cases = random_cases(shape, window)
        if images is not None:
            cases += photo_cases(images, shape)
        reference = reference_model(artifact, weights)
        with_images = html_path is not None
        report = run_verify(
            artifact, reference, cases, with_images, status.update, float64, runtime
        )
    render_table(report, console)
    for note in report.notes:
        console.print(f"note: {note}")
    for path, text in ((json_path, to_json), (html_path, to_html)):
        if path is not None:
            with atomic_path(path) as temporary:
                temporary.write_text(text(report))
            console.print(f"wrote {path}")
    if not report.passed:
        layer = f"; first layer that departs: {report.first_departed}" if report.layers else ""
        raise CheckFailedError(f"{file} does not match PyTorch{layer}")
    record_parity(artifact, report)


@cli.command()
@click.argument("file", type=PATH)
@click.argument("photos", type=PATH, nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", type=PATH, default="restored", show_default=True, help="Folder.")
@click.option("--tile", type=click.IntRange(min=0), help="Tile side in pixels; 0 never tiles.")
@click.option("--overlap", type=click.IntRange(min=0), help="Pixels two tiles share.")
@click.option("--format", "suffix", type=click.Choice(["png", "jpg", "webp", "tiff"]))
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="onnxruntime",
    show_default=True,
    help="What runs FILE, on the CPU.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="f32",
    show_default=True,
    help="Arithmetic of OpenVINO; ONNX Runtime does as the graph says.",
)
@click.option("--mask", is_flag=True, help="Also write NAME_mask.png: what was taken for blurred.")
def run(
    file: Path,
    photos: tuple[Path, ...],
    output: Path,
    tile: int | None,
    overlap: int | None,
    suffix: str | None,
    runtime: Any,
    precision: Any,
    mask: bool,
) -> None:
    """Restore photos with FILE and write them into a folder under their own names."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from deblur_export.export.manifest import read_artifact
    from deblur_export.export.restore import Restorer, TileOptions, restore_file, targets

    console = _console()
    restorer = Restorer(read_artifact(file), mask, runtime, precision)
    for note in restorer.session.notes:
        console.print(f"note: {note}")
    destinations = targets(photos, output, suffix)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        for source, target in destinations:
            task = progress.add_task(source.name, total=None)
            notes = restore_file(
                restorer,
                source,
                target,
                TileOptions(tile, overlap),
                lambda done, total, task=task: progress.update(task, completed=done, total=total),  # type: ignore[misc]
            )
            progress.remove_task(task)
            console.print(f"{source} -> {target}")
            for note in notes:
                console.print(f"  note: {note}")


@cli.command()
def models() -> None:
    """Networks, variants, sizes and where they come from."""
    console = _console()
    with console.status("counting"):
        from deblur_export.export.catalogue import models_table, sources

        table = models_table()
    console.print(table)
    console.print(
        "GMACs: multiply-adds of convolutions and matrix products for one 256x256 image; m2aenet "
        "with every pixel computed."
    )
    for line in sources():
        console.print(line)


@cli.command()
def doctor() -> None:
    """What is installed, what works on this machine, and what to install for the rest."""
    console = _console()
    with console.status("looking"):
        from deblur_export.export.doctor import doctor_table

        table = doctor_table()
    console.print(table)


@cli.group()
def plugins() -> None:
    """Native kernels of the custom ops."""


@plugins.command("build")
def build_plugins() -> None:
    """Compile the native kernels into the installed package (needs a C++ compiler)."""
    from deblur_export.plugins.native_build import EXTENSION, LIBRARY, BuildError, build

    console = _console()
    folder = (Path(__file__).parent / "plugins").resolve()
    with console.status("compiling"):
        try:
            reason = build(folder / "csrc", folder / LIBRARY, folder / EXTENSION)
        except BuildError as error:
            raise DeblurExportError(f"native kernels not built: {error}") from error
    console.print(f"built {folder / LIBRARY}")
    if reason is None:
        console.print(f"built {folder / EXTENSION}")
    else:
        console.print(f"native ops for OpenVINO not built: {reason}")
    console.print("deblur-export doctor tries them")


def _console() -> Console:
    from rich.console import Console

    # File names may hold brackets; nothing printed here is markup.
    return Console(soft_wrap=True, markup=False)


def main() -> NoReturn:
    """Entry point: 0 for success, 1 for a failed check, 2 for bad input or an interruption."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = cli(standalone_mode=False)
    except click.UsageError as error:
        verb = error.ctx.command_path if error.ctx else "deblur-export"
        _fail(f"{error.format_message()} (see {verb} --help)", 2)
    except CheckFailedError as error:
        _fail(str(error), 1)
    except DeblurExportError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; no unfinished file was left behind", 2)
    except MemoryError:
        _fail("out of memory; close other programs, or use --tile 512 with run", 2)
    except BrokenPipeError:
        sys.exit(2)
    except Exception as error:
        if os.environ.get("DEBLUR_EXPORT_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {error}"
        _fail(f"internal error, {what} (DEBLUR_EXPORT_TRACEBACK=1 shows where)", 2)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> NoReturn:
    one_line = " ".join(message.split())
    print(f"error: {one_line}", file=sys.stderr)
    sys.exit(code)
