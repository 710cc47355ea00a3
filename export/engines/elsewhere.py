"""Engines that are built on another machine, with TensorRT's own tools: how to build one, the
manifest that makes it usable, and the check of the layers that trtexec lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deblur_export.artifact import Artifact, file_sha256, sidecar_path, write_sidecar
from deblur_export.engine_file import engine_of
from deblur_export.engine_record import Census, EngineCheck, EngineRecord, OtherFile, Profile
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines import commands
from deblur_export.export.engines.check import check_layers, inspected
from deblur_export.export.engines.options import BuildOptions, sizes_text
from deblur_export.export.engines.plugin_graph import write_plugin_form
from deblur_export.export.engines.typed import claim_of
from deblur_export.plugins.libraries import tensorrt as tensorrt_library


def instructions(
    typed: Artifact,
    engine: Path,
    profile: Profile | None,
    options: BuildOptions,
    reasons: tuple[str, ...],
) -> tuple[str, ...]:
    """Write the manifest of an engine that is still to be built, and return the lines for the user:
    why it was not built here, and how to build it on another machine.

    Args:
        typed: the strongly typed file from which it is built.
        engine: its path.
        profile: the image sizes; None for a file of fixed shape.
        options: how to build.
        reasons: why nothing can build here.

    Raises:
        DeblurExportError: the manifest cannot be written.
    """
    onnx, options = _with_plugins(typed, options)
    record = EngineRecord(
        onnx=OtherFile(typed.path.name, typed.sha256),
        backend="TensorRT",
        version="",
        profile=profile,
        flags=options.flags(),
        plugins=tuple(OtherFile(file.name, _hash(file)) for file in options.plugins),
        check=EngineCheck(options.precision, Census("layers of the parsed network", {}), None, ()),
    )
    write_sidecar(engine, typed.manifest.derived(engine=record))
    files = (onnx, engine, typed.manifest.input.name, profile, options)
    return (
        "no engine was built: no TensorRT can build here",
        *(f"  {reason}" for reason in reasons),
        f"{onnx} is strongly typed, {options.precision}; on the machine with the GPU run one of "
        "these",
        *(f"with the plugins of {library}" for library in options.plugins),
        *sizes_text(profile, options.sizes),
        commands.trtexec(*files),
        commands.polygraphy(*files),
        f"keep {sidecar_path(engine).name} beside the engine: verify and run need it, and verify "
        f"checks the precision by {layers_path(engine).name}, which trtexec writes",
    )


def layers_path(engine: Path) -> Path:
    """Where the layers of TensorRT's engine inspector are: `net.layers.json` of `net.engine`."""
    return engine.with_suffix(".layers.json")


def plugins_path(onnx: Path) -> Path:
    """Where the form of a file is whose custom ops need plugins."""
    return onnx.with_suffix(".plugins.onnx")


def check_built_elsewhere(engine: Artifact) -> tuple[str, ...]:
    """Check the precision of an engine that was built with TensorRT's own tools, by its list of
    layers; returns notes for the user, none for an engine that `deblur-export trt` built.

    Raises:
        CheckFailedError: it is not in the precision that was asked for.
        DeblurExportError: the list cannot be read.
    """
    record = engine_of(engine)
    if not record.built_elsewhere:
        return ()
    path = layers_path(engine.path)
    if not path.is_file():
        return (
            f"{path.name} is not beside the engine, so that its precision was not checked; trtexec "
            "writes it with --exportLayerInfo",
        )
    try:
        census = inspected(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeblurExportError(
            f"{path}: not the list of layers that trtexec writes with --exportLayerInfo; write it "
            "again, or delete it"
        ) from error
    if census is None:
        return (f"{path.name} shows no types; build with --profilingVerbosity=detailed",)
    claim = replace(claim_of(engine), file=str(engine.path))
    return (f"precision check: {check_layers(record.check.precision, census, claim)}",)


def _with_plugins(typed: Artifact, options: BuildOptions) -> tuple[Path, BuildOptions]:
    """The file and options for TensorRT's tools. If there is a plugin library and the file has
    custom ops, the file is written in the form that needs the plugins."""
    ops = typed.manifest.custom_ops
    packaged = tensorrt_library.find().path
    libraries = options.plugins or ((packaged,) if packaged else ())
    if not ops or not libraries:
        return typed.path, options
    path = plugins_path(typed.path)
    write_plugin_form(typed, ops, path)
    return path, replace(options, plugins=libraries)


def _hash(file: Path) -> str:
    """Of a library; it may lie on the other machine only."""
    return file_sha256(file) if file.is_file() else ""
