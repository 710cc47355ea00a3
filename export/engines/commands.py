"""Command lines that build an engine on another machine, with TensorRT's own tools."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from deblur_export.engine_record import FixedShape, Profile
from deblur_export.export.engines.options import BuildOptions


def trtexec(
    onnx: Path, engine: Path, image: str, profile: Profile | None, options: BuildOptions
) -> str:
    """For TensorRT 10.3 to 11; `image` is the name of the file's input."""
    arguments = [
        f"--onnx={onnx}",
        f"--saveEngine={engine}",
        "--stronglyTyped",
        "--profilingVerbosity=detailed",
        f"--exportLayerInfo={engine.with_suffix('.layers.json')}",
        "--skipInference",
    ]
    for option, shape in _shapes(profile, "minShapes", "optShapes", "maxShapes").items():
        arguments.append(f"--{option}={image}:{'x'.join(map(str, shape))}")
    if not options.tf32:
        arguments.append("--noTF32")
    if options.workspace is not None:
        arguments.append(f"--memPoolSize=workspace:{options.workspace:g}G")
    if options.version_compatible:
        arguments.append("--versionCompatible")
    if options.hardware_compatible:
        arguments.append("--hardwareCompatibilityLevel=ampere+")
    if options.timing_cache is not None:
        arguments.append(f"--timingCacheFile={options.timing_cache}")
    arguments += [f"--dynamicPlugins={library}" for library in options.plugins]
    return shlex.join(["trtexec", *arguments])


def polygraphy(
    onnx: Path, engine: Path, image: str, profile: Profile | None, options: BuildOptions
) -> str:
    """For any TensorRT that polygraphy 0.49.26 or newer knows; as `trtexec`."""
    arguments = ["convert", str(onnx), "--convert-to", "trt", "-o", str(engine), "--strongly-typed"]
    names = ("trt-min-shapes", "trt-opt-shapes", "trt-max-shapes")
    for option, shape in _shapes(profile, *names).items():
        arguments += [f"--{option}", f"{image}:[{','.join(map(str, shape))}]"]
    if options.tf32:
        arguments.append("--tf32")
    if options.workspace is not None:
        arguments += ["--pool-limit", f"workspace:{options.workspace:g}G"]
    if options.version_compatible:
        arguments.append("--version-compatible")
    if options.hardware_compatible:
        arguments += ["--hardware-compatibility-level", "ampere_plus"]
    if options.timing_cache is not None:
        cache = str(options.timing_cache)
        arguments += ["--load-timing-cache", cache, "--save-timing-cache", cache]
    if options.plugins:
        arguments += ["--plugins", *map(str, options.plugins)]
    return shlex.join(["polygraphy", *arguments])


def _shapes(profile: Profile | None, *names: str) -> Mapping[str, FixedShape]:
    """The profile's three shapes under a tool's names; none for a file of fixed shape."""
    if profile is None:
        return {}
    shapes = (profile.smallest, profile.typical, profile.largest)
    return dict(zip(names, shapes, strict=True))
