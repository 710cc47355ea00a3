"""Open a file on one of the runtimes, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deblur_export.engine_file import read_engine
from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes.onnxruntime_session import OnnxRuntimeSession
from deblur_export.export.runtimes.openvino_session import OpenVinoSession
from deblur_export.export.runtimes.session import Runtime, Session
from deblur_export.precision import GraphPrecision


def open_session(
    path: Path,
    runtime: Runtime = "onnxruntime",
    extra_outputs: tuple[str, ...] = (),
    precision: GraphPrecision = "fp32",
    threads: int = 0,
    plugins: Sequence[Path] = (),
) -> Session:
    """Load a file.

    Args:
        path: an ONNX file of ours; for "tensorrt" an engine.
        runtime: which runtime.
        extra_outputs: inner values to return as well.
        precision: of the arithmetic, OpenVINO only; ONNX Runtime computes as the graph says.
        threads: 0 for the runtime's choice.
        plugins: libraries of custom ops that an engine was built with.

    Raises:
        DeblurExportError: the runtime is not installed or cannot load the file.
    """
    if runtime == "tensorrt":
        from deblur_export.export.runtimes.tensorrt_session import EngineSession

        if extra_outputs:
            raise DeblurExportError(f"{path}: an engine has no values but its output")
        return EngineSession(read_engine(path), plugins)
    if runtime == "openvino":
        return OpenVinoSession(path, extra_outputs, precision, threads)
    if precision != "fp32":
        raise DeblurExportError(
            "ONNX Runtime computes in the precision of the graph; --precision is for OpenVINO"
        )
    return OnnxRuntimeSession(path, extra_outputs, threads, runtime == "onnxruntime-cuda")
