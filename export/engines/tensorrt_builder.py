"""Builds engines with TensorRT 10.3 to 11, on the GPU for which the engine is.

Written to the documented Python API of 10.3 and 11; it was exercised only as far as TensorRT for
RTX shares that API, because TensorRT does not start without a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from deblur_export.artifact import Artifact, ModelFile
from deblur_export.atomic import atomic_path
from deblur_export.engine_record import Census, Profile
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines import nvinfer
from deblur_export.export.engines.check import inspected
from deblur_export.export.engines.nvinfer import Built, CannotBuildHereError, Listener
from deblur_export.export.engines.options import ENGINE, BuildOptions
from deblur_export.export.engines.plugin_graph import plugin_form
from deblur_export.export.runtimes import nvinfer_log
from deblur_export.export.runtimes.gpu import compute_capability, gpu_count
from deblur_export.export.runtimes.probe import version_tuple
from deblur_export.plugins.function_body import DOMAIN, VERSION
from deblur_export.plugins.libraries import cuda as cuda_library
from deblur_export.plugins.libraries import tensorrt as tensorrt_library
from deblur_export.target import TARGETS

MIN_VERSION = (10, 3)


def open_builder(options: BuildOptions) -> TensorRtBuilder:
    """The builder of the installed TensorRT.

    Raises:
        CannotBuildHereError: TensorRT is not installed or too old, or there is no GPU.
        DeblurExportError: an option is not supported.
    """
    if options.compute_capabilities:
        raise DeblurExportError(
            "TensorRT builds for the GPU it runs on; --compute-capability is for --backend rtx"
        )
    try:
        import tensorrt
    except ImportError as error:
        raise CannotBuildHereError(
            "TensorRT is not installed; pip install 'deblur-export[trt]'"
        ) from error
    builder = TensorRtBuilder(tensorrt)
    if gpu_count() == 0:
        raise CannotBuildHereError(
            f"{builder.title} needs an NVIDIA GPU to build, and there is none here; build on the "
            "target machine, or use --backend rtx"
        )
    return builder


class TensorRtBuilder:
    """See `builder.Builder`."""

    reason = "installed, and there is a GPU"
    covers = "an engine is for the GPU that builds it; never run by the authors of this package"
    suffix = ENGINE

    def __init__(self, trt: ModuleType) -> None:
        self.trt = trt
        self.version = str(trt.__version__)
        self.title = f"TensorRT {self.version}"
        if version_tuple(self.version) < MIN_VERSION:
            least = ".".join(map(str, MIN_VERSION))
            raise CannotBuildHereError(
                f"{self.title} is too old, {least} or newer is needed; "
                "pip install -U 'deblur-export[trt]'"
            )

    def check(self, artifact: Artifact) -> None:
        target = artifact.manifest.target
        # The portable form may contain what TensorRT refuses, a loop or a large TopK.
        if TARGETS[target].belongs_to:
            raise DeblurExportError(
                f"{artifact.path}: exported with --target {target}, which is for another runtime; "
                "export it with deblur-export onnx --target rtx"
            )

    def build(
        self, artifact: Artifact, profile: Profile | None, options: BuildOptions, listener: Listener
    ) -> Built:
        self.check(artifact)
        path = artifact.path
        trt, log = self.trt, nvinfer_log.message_log(self.trt)
        ops = artifact.manifest.custom_ops
        libraries = options.plugins or self._packaged(ops)
        plugins = self._load_plugins(libraries, ops, log)
        graph = self._graph(artifact, plugins)
        parsed = nvinfer.parse(trt, graph, log, str(path))
        config = nvinfer.configure(trt, parsed, profile, options)
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.hardware_compatible:
            level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
            config.hardware_compatibility_level = level
        notes = [*_note_ops(ops, plugins), *self._use_timing_cache(config, options.timing_cache)]
        data = nvinfer.serialize(trt, parsed, config, listener, str(path))
        if options.timing_cache is not None:
            with atomic_path(options.timing_cache) as temporary:
                temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
        census, layers = self._inspect(data, options, log)
        network = nvinfer.census(trt, parsed.network)
        return Built(data, network, census, layers, tuple(notes), plugins=libraries)

    def _packaged(self, ops: Sequence[str]) -> tuple[Path, ...]:
        """The plugin library of this package, if the file needs it, it fits this TensorRT, and its
        kernels have code for the GPU, which an engine is for."""
        found = tensorrt_library.find(version_tuple(self.version)[0])
        major, minor = version_tuple(compute_capability() or "0.0")
        able = cuda_library.runs_on((major, minor))
        return (found.path,) if ops and found.path and able else ()

    def _load_plugins(self, libraries: Sequence[Path], ops: Sequence[str], log: Any) -> list[str]:
        """Load the libraries; returns the `ops` for which they have a plugin in the namespace
        `deblur`."""
        nvinfer_log.load_plugins(self.trt, libraries, self.title, log)
        registry = self.trt.get_plugin_registry()
        found = [op for op in ops if registry.get_creator(op, str(VERSION), DOMAIN) is not None]
        if libraries and not found:
            raise DeblurExportError(
                f"the plugin libraries hold none of the file's custom ops ({', '.join(ops)}); "
                "leave --plugins out to use their bodies"
            )
        return found

    def _graph(self, file: ModelFile, plugins: Sequence[str]) -> bytes:
        """The bytes of the file, in the form for which the parser uses these plugins."""
        if not plugins:
            return file.content
        return plugin_form(file.proto, plugins).SerializeToString()  # type: ignore[no-any-return]

    def _use_timing_cache(self, config: Any, path: Path | None) -> list[str]:
        """Give the builder the measurements of earlier builds. Returns notes."""
        if path is None:
            return []
        content = path.read_bytes() if path.is_file() else b""
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return []
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
        return [f"{path} is of another TensorRT or GPU and was written anew"]

    def _inspect(self, data: bytes, options: BuildOptions, log: Any) -> tuple[Census | None, str]:
        """Counts of the layers of a built engine, and the JSON of its inspector."""
        runtime = self.trt.Runtime(log)
        runtime.engine_host_code_allowed = options.version_compatible
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise DeblurExportError(f"the built engine cannot be loaded: {nvinfer_log.last(log)}")
        inspector = engine.create_engine_inspector()
        text: str = inspector.get_engine_information(self.trt.LayerInformationFormat.JSON)
        return inspected(text), text


def _note_ops(ops: Sequence[str], plugins: Sequence[str]) -> list[str]:
    """Lines that say which custom ops run as plugins and which as standard operators."""
    bodies = [op for op in ops if op not in plugins]
    notes = [f"custom ops as plugins: {', '.join(plugins)}"] if plugins else []
    if bodies:
        notes.append(f"custom ops as standard operators, without a plugin: {', '.join(bodies)}")
    return notes
