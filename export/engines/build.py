"""Builds an engine from an ONNX file and checks its precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deblur_export.artifact import Artifact, file_sha256, sidecar_path, with_sidecar
from deblur_export.atomic import atomic_path
from deblur_export.engine_record import EngineCheck, EngineRecord, OtherFile, Profile
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines.builder import Builder
from deblur_export.export.engines.builders import Choice
from deblur_export.export.engines.check import check_engine
from deblur_export.export.engines.elsewhere import instructions, layers_path, plugins_path
from deblur_export.export.engines.nvinfer import Built, Listener
from deblur_export.export.engines.options import ENGINE, BuildOptions, profile_for, sizes_text
from deblur_export.export.engines.typed import check_layout, claim_of, typed_file, typed_path
from deblur_export.manifest import Manifest
from deblur_export.outputs import check_outputs


@dataclass(frozen=True)
class Outcome:
    """What was written. `engine` is None if no builder can build on this machine; `lines` are for
    the user."""

    typed: Artifact
    engine: Path | None
    lines: tuple[str, ...]


def build_engine(
    artifact: Artifact,
    options: BuildOptions,
    choice: Choice,
    output: Path | None,
    listener: Listener,
) -> Outcome:
    """Type the file, build the engine, check its precision and write it with its manifest.

    Args:
        artifact: a file in fp32 or in the requested precision; for int8, alone or mixed with
            another precision, a calibrated file.
        options: how to build.
        choice: from `builders.choose`; without a builder the typed file is written, and `lines`
            contain the commands for the target machine.
        output: path of the engine; None stands for one beside the file, like `net_fp16.engine`, or
            `net_fp16.rtx.engine` of TensorRT for RTX.
        listener: is told the progress of the build.

    Raises:
        CheckFailedError: the engine is not in the requested precision; it is not written.
        DeblurExportError: bad sizes, a file that the builder does not support, or a path that
            cannot be written.
    """
    profile = profile_for(artifact.manifest.input.shape, options.sizes)
    check_layout(artifact)
    if output is not None and output.suffix in (".onnx", ".json"):
        raise DeblurExportError(f"{output}: an engine cannot end in {output.suffix}; use .engine")
    folder = artifact.path.parent if output is None else output.parent
    onnx = typed_path(artifact, options, folder)
    builder = choice.builder
    engine = output or onnx.with_suffix(builder.suffix if builder else ENGINE)
    check_outputs(
        [
            *(() if onnx == artifact.path else with_sidecar("the typed ONNX file", onnx)),
            ("the ONNX file for plugins", plugins_path(onnx)),
            *with_sidecar("the engine", engine),
            ("the list of its layers", layers_path(engine)),
            ("the timing cache", options.timing_cache),
        ],
        [*artifact.files, *options.plugins],
    )
    typed = typed_file(artifact, options, onnx)
    if builder is None:
        return Outcome(typed, None, instructions(typed, engine, profile, options, choice.reasons))
    built = builder.build(typed, profile, options, listener)
    expected = built.expected or built.network
    findings = check_engine(
        options.precision, built.network, built.engine, expected, claim_of(typed)
    )
    _write(typed, engine, profile, options, builder, built, findings)
    size = len(built.data) / 1e6
    summary = f"{engine}: {size:.1f} MB, {typed.title}, {options.precision}, {builder.title}"
    return Outcome(
        typed,
        engine,
        (
            summary,
            *sizes_text(profile, options.sizes),
            *(f"precision check: {line}" for line in findings),
            *built.notes,
        ),
    )


def _write(
    typed: Artifact,
    engine: Path,
    profile: Profile | None,
    options: BuildOptions,
    builder: Builder,
    built: Built,
    findings: list[str],
) -> None:
    """Write the engine, its manifest, and the layers that TensorRT's engine inspector lists."""
    sidecar_path(engine).unlink(missing_ok=True)
    with atomic_path(engine) as temporary:
        temporary.write_bytes(built.data)
    if built.layers:
        with atomic_path(layers_path(engine)) as temporary:
            temporary.write_text(built.layers, encoding="utf-8")
    manifest = describe(typed, profile, options, builder, built, findings)
    Artifact(engine, manifest).recorded()


def describe(
    typed: Artifact,
    profile: Profile | None,
    options: BuildOptions,
    builder: Builder,
    built: Built,
    findings: list[str],
) -> Manifest:
    """The engine's manifest: that of the ONNX file, and how the engine was built from it."""
    record = EngineRecord(
        onnx=OtherFile(typed.path.name, typed.sha256),
        backend=builder.title,
        version=builder.version,
        profile=profile,
        flags=options.flags(),
        plugins=tuple(OtherFile(file.name, file_sha256(file)) for file in built.plugins),
        check=EngineCheck(options.precision, built.network, built.engine, tuple(findings)),
    )
    return typed.manifest.derived(engine=record)
