"""Engines on the GPU, by the runtime API that TensorRT and TensorRT for RTX share.

Written to the documented API and **never run**: there was no GPU. Tests hold what comes before the
first call that needs one, and the calls themselves against a stand-in.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from polygraphy import cuda
from polygraphy.datatype import DataType

from deblur_export.artifact import Artifact, ModelFile
from deblur_export.engine_file import check_shape, engine_of, is_engine, read_engine
from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes import nvinfer_log
from deblur_export.export.runtimes.backend import Backend, Opening, Verdict
from deblur_export.export.runtimes.gpu import compute_capability, gpu_count
from deblur_export.export.runtimes.probe import Finding
from deblur_export.export.runtimes.session import Arrays, Session
from deblur_export.plugins.libraries import tensorrt as tensorrt_library
from deblur_export.precision import PrecisionName

RTX = "TensorRT for RTX"


class EngineSession:
    """A `runtimes.Session` for an engine with one input and one output.

    Args:
        artifact: from `engine_file.read_engine`.
        plugins: libraries of the custom ops that the engine was built with.

    Raises:
        DeblurExportError: TensorRT is not installed or has another version, there is no GPU or
            another one than the engine was built for, a plugin library is missing, or the engine
            does not load.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, artifact: Artifact, plugins: Sequence[Path] = ()) -> None:
        self.artifact = artifact
        manifest, engine_record = artifact.manifest, engine_of(artifact)
        trt = _library(artifact)
        capability = _capability(artifact)
        self.title = f"{_name(artifact)} {trt.__version__} on compute capability {capability}"
        log = nvinfer_log.message_log(trt)
        _load_plugins(trt, artifact, plugins, log)
        runtime = trt.Runtime(log)
        if engine_record.flags.version_compatible:
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(artifact.path.read_bytes())
        context = engine and engine.create_execution_context()
        if not context:
            raise DeblurExportError(
                f"{artifact.path} does not load on this GPU: {nvinfer_log.last(log)}; build it "
                "here with deblur-export trt"
            )
        self.log, self.context = log, context
        self.owners = (runtime, engine)  # the context does not keep them alive
        self.image, self.restored = manifest.input.name, manifest.output.name
        self.types = {
            name: np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
            for name in (self.image, self.restored)
        }
        try:
            self.stream = cuda.Stream()
            self.arrays = {
                name: cuda.DeviceArray(dtype=DataType.from_dtype(kind))
                for name, kind in self.types.items()
            }
        except Exception as error:  # polygraphy's own, OSError
            raise DeblurExportError(
                f"{artifact.path}: no CUDA runtime (libcudart) to give the engine memory: "
                f"{' '.join(str(error).split())}"
            ) from error

    def run(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        image = np.ascontiguousarray(feed[self.image], self.types[self.image])
        check_shape(self.artifact, image.shape)
        try:
            restored = self._run(image)
        except Exception as error:  # polygraphy's own, MemoryError, OSError
            raise self._failed(image.shape, str(error)) from error
        return {self.restored: restored}

    def _run(self, image: NDArray[Any]) -> NDArray[Any]:
        context, given, made = self.context, self.arrays[self.image], self.arrays[self.restored]
        if not context.set_input_shape(self.image, image.shape):
            raise RuntimeError(nvinfer_log.last(self.log))
        given.resize(image.shape)
        given.copy_from(image, self.stream)
        made.resize(tuple(context.get_tensor_shape(self.restored)))
        for name, array in self.arrays.items():
            context.set_tensor_address(name, array.ptr)
        if not context.execute_async_v3(self.stream.ptr):
            raise RuntimeError(nvinfer_log.last(self.log))
        self.stream.synchronize()
        values: NDArray[Any] = made.numpy()
        return values.astype(np.float32, copy=False)

    def _failed(self, shape: Sequence[int], reason: str) -> DeblurExportError:
        words = " ".join(reason.split())
        return DeblurExportError(
            f"{self.title} failed on {'x'.join(map(str, shape))}, perhaps for lack of GPU memory; "
            f"try --tile 512 ({words})"
        )


def _name(artifact: Artifact) -> str:
    return RTX if engine_of(artifact).backend.startswith(RTX) else "TensorRT"


def _library(artifact: Artifact) -> ModuleType:
    """The Python module of the TensorRT that the engine was built with."""
    name, engine = _name(artifact), engine_of(artifact)
    package, extra = {RTX: ("tensorrt_rtx", "rtx"), "TensorRT": ("tensorrt", "trt")}[name]
    try:
        trt = importlib.import_module(package)
    except ImportError as error:
        raise DeblurExportError(
            f"{artifact.path} needs {name}, which is not installed; pip install "
            f"'deblur-export[{extra}]'"
        ) from error
    same = trt.__version__ == engine.version or engine.flags.version_compatible
    if name == "TensorRT" and not same and not engine.built_elsewhere:
        raise DeblurExportError(
            f"{artifact.path} was built by TensorRT {engine.version}, and here is "
            f"{trt.__version__}: build it again, or with --version-compatible"
        )
    return trt


def _capability(artifact: Artifact) -> str:
    """The compute capability of the GPU; refuses one that an engine of TensorRT for RTX was not
    built for. TensorRT itself checks that its engines run on the GPU that built them."""
    name, engine = _name(artifact), engine_of(artifact)
    if gpu_count() == 0:
        raise DeblurExportError(
            f"{artifact.path}: {name} runs engines on an NVIDIA GPU, and there is none here; "
            f"use {engine.onnx.file}, from which it was built, or a machine with one"
        )
    capability = compute_capability()
    wanted = engine.flags.compute_capabilities
    if wanted and capability not in wanted:
        raise DeblurExportError(
            f"{artifact.path} was built for compute capability {', '.join(wanted)}, and this GPU "
            f"has {capability}; build it with --compute-capability {capability}"
        )
    return capability


def _load_plugins(trt: ModuleType, artifact: Artifact, plugins: Sequence[Path], log: Any) -> None:
    recorded = engine_of(artifact).plugins
    if recorded and not plugins:
        names = " ".join(f"--plugins {entry.file}" for entry in recorded)
        raise DeblurExportError(
            f"{artifact.path} was built with plugins of custom ops; add {names}"
        )
    nvinfer_log.load_plugins(trt, plugins, _name(artifact), log)


class TensorRt(Backend):
    """TensorRT and TensorRT for RTX: an engine says which of them it belongs to."""

    title = "TensorRT"
    package = "tensorrt"
    precisions = ()
    computes = get_args(PrecisionName)
    runs_engines = True

    def able(self, artifact: Artifact) -> Verdict:
        engine = is_engine(artifact.path)
        return Verdict(engine, "it is an engine" if engine else "the file is no engine")

    def load(self, file: ModelFile, how: Opening) -> Session:
        if how.extra_outputs:
            raise DeblurExportError(f"{file.path}: an engine has no values but its output")
        artifact = file if isinstance(file, Artifact) else read_engine(file.path)
        return EngineSession(artifact, how.plugins)

    def findings(self) -> Iterable[Finding]:
        path, reason = tensorrt_library.find()
        version = str(tensorrt_library.VERSION) if path else "-"
        yield Finding("TensorRT plugins", version, path is not None, reason)


TENSORRT = TensorRt()
