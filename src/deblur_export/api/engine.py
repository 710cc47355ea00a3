"""`build_engine`: from a network or an ONNX file to a TensorRT engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from deblur_export.api.common import (
    TORCH_LOCK,
    PathLike,
    Progress,
    as_artifact,
    as_path,
    quiet,
)
from deblur_export.api.engine_source import Data, calibrated_for_engine, exported_for_engine
from deblur_export.artifact import Artifact, with_sidecar
from deblur_export.calibration.calibrate import MAX_DROP
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines import build
from deblur_export.export.engines.build import Outcome
from deblur_export.export.engines.builders import Choice, choose
from deblur_export.export.engines.nvinfer import Listener
from deblur_export.export.engines.options import (
    ORIENTATIONS,
    BuildOptions,
    Orientation,
    Size,
    Sizes,
    precision_of,
)
from deblur_export.export.engines.registry import BACKENDS, BackendChoice
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.onnx_reading import graph_errors
from deblur_export.outputs import check_outputs
from deblur_export.precision import EnginePrecision


class SilentListener:
    """Hears how a build goes on and shows nothing."""

    def start(self, phase: str, parent: str | None, steps: int) -> None: ...

    def step(self, phase: str, step: int) -> None: ...

    def finish(self, phase: str) -> None: ...


def build_engine(
    source: Artifact | LoadedModel | PathLike,
    output: PathLike | None = None,
    *,
    precision: EnginePrecision | None = None,
    io: Literal["fp32", "fp16"] = "fp32",
    images: PathLike | None = None,
    dataset: PathLike | None = None,
    max_psnr_drop: float | None = None,
    backend: BackendChoice = "auto",
    smallest: Size | None = None,
    typical: Size | None = None,
    largest: Size | None = None,
    orientation: Orientation = "any",
    size: Size | None = None,
    batch: tuple[int, int, int] | None = None,
    plugins: Sequence[PathLike] = (),
    timing_cache: PathLike | None = None,
    workspace: float | None = None,
    tf32: bool = False,
    version_compatible: bool = False,
    hardware_compatible: bool = False,
    compute_capabilities: Sequence[str] = (),
    listener: Listener | None = None,
    progress: Progress = quiet,
) -> Outcome:
    """Build a TensorRT engine and check its precision; the options of `deblur-export trt`.

    Where no TensorRT can build, the strongly typed ONNX file and the manifest of the engine are
    written, and `lines` of the result hold the commands for the target machine.

    Args:
        source: an exported ONNX file (artifact or path), or a network of `load_model`, which is
            exported first.
        output: the .engine file; None is beside the ONNX file, `net_fp16.engine`, or
            `net_fp16.rtx.engine` of TensorRT for RTX.
        precision: "fp32", "fp16", "bf16", "int8", "int8+fp16" or "int8+bf16"; None is the file's.
        io: type of input and output.
        images, dataset, max_psnr_drop: int8 of a float32 file only, see `calibrate`.
        backend: "tensorrt" builds on the GPU that the engine is for, "rtx" (TensorRT for RTX)
            needs none; "auto" selects the first that can build here.
        smallest, typical, largest: image sizes (height, width) that the engine accepts and is
            tuned for; None are 64x64, `largest` or without it 720x1280, and 1440x2560.
        orientation: of the images: "any", where both sides may be as long as the longer one of
            `largest`, "landscape" or "portrait".
        size: the only size, instead of `smallest`, `typical` and `largest`.
        batch: smallest, typical and largest batch; None is (1, 1, 1).
        plugins: libraries of the custom ops; none for the packaged one, where it was built.
        timing_cache: file of measurements to use and to add to.
        workspace: memory of the builder in GiB.
        tf32: let float32 convolutions use TF32.
        version_compatible, hardware_compatible: load in newer TensorRT; run on any GPU from
            Ampere on.
        compute_capabilities: of the GPUs of an rtx engine, such as "8.9".
        listener: hears how the build goes on.
        progress: called with a description of each step before the build.

    Raises:
        CheckFailedError: the engine is not in the precision asked for; it is not written.
        DeblurExportError: sizes that do not ascend, a file that the backend does not accept, a
            path that cannot be written, or TensorRT for RTX is named and cannot build here.
    """
    for name, value, known in (
        ("precision", precision, (None, *get_args(EnginePrecision))),
        ("backend", backend, BACKENDS),
        ("io", io, ("fp32", "fp16")),
        ("orientation", orientation, ORIENTATIONS),
    ):
        if value not in known:
            raise DeblurExportError(f"{name} is {value!r}, not one of {', '.join(map(str, known))}")
    calibrated = precision is not None and "int8" in precision
    if not calibrated and (images, dataset, max_psnr_drop) != (None, None, None):
        raise DeblurExportError("images, dataset and max_psnr_drop are for int8")
    options = BuildOptions(
        sizes=Sizes(smallest, typical, largest, batch, orientation, size),
        plugins=tuple(map(Path, plugins)),
        timing_cache=as_path(timing_cache),
        workspace=workspace,
        tf32=tf32,
        half_io=io == "fp16",
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        compute_capabilities=tuple(compute_capabilities),
    )
    drop = MAX_DROP if max_psnr_drop is None else max_psnr_drop
    data = Data(as_path(images), as_path(dataset), drop)
    start = source if isinstance(source, LoadedModel) else as_artifact(source)
    plan = plan_engine(start, options, backend, precision, data, as_path(output), progress)
    return plan.build(listener or SilentListener())


@dataclass(frozen=True)
class EnginePlan:
    """All that a build needs: an ONNX file that is calibrated where it has to be, the options, and
    the backend with the reasons for choosing it."""

    artifact: Artifact
    options: BuildOptions
    choice: Choice
    output: Path | None

    def build(self, listener: Listener) -> Outcome:
        """Build, see `export.engines.build.build_engine`."""
        with graph_errors(self.artifact.path):
            return build.build_engine(
                self.artifact, self.options, self.choice, self.output, listener
            )


def plan_engine(
    source: Artifact | LoadedModel,
    options: BuildOptions,
    backend: BackendChoice,
    precision: EnginePrecision | None,
    data: Data,
    output: Path | None,
    progress: Progress,
) -> EnginePlan:
    """Choose the backend, then export a network, and calibrate for int8 what is float32.

    Raises:
        CheckFailedError, DeblurExportError: see `build_engine`.
    """
    choice = choose(backend, options)
    sources = [Path(source.weights)] if isinstance(source, LoadedModel) else source.files
    check_outputs(
        [
            *(() if output is None else with_sidecar("the engine", output)),
            ("the timing cache", options.timing_cache),
        ],
        [*sources, data.images, data.dataset, *options.plugins],
    )
    with TORCH_LOCK:
        if isinstance(source, LoadedModel):
            source = exported_for_engine(source, folder_of(output, Path()), progress)
        if precision is not None and "int8" in precision:
            folder = folder_of(output, source.path.parent)
            source = calibrated_for_engine(source, choice, data, folder, progress)
    chosen = replace(options, precision=precision or precision_of(source.manifest))
    return EnginePlan(source, chosen, choice, output)


def folder_of(output: Path | None, default: Path) -> Path:
    """Where the files on the way to an engine are written."""
    return default if output is None else output.parent
