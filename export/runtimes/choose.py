"""`--runtime auto`: what runs a file on this machine, by what is installed, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnxruntime
from onnx.parser import parse_model

from deblur_export.engine_file import is_engine
from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes.gpu import gpu_count
from deblur_export.export.runtimes.onnxruntime_session import CUDA_PROVIDER
from deblur_export.export.runtimes.session import Runtime
from deblur_export.manifest import Artifact
from deblur_export.plugins.libraries import openvino as openvino_library
from deblur_export.precision import GraphPrecision
from deblur_export.target import TARGETS

Asked = Literal["auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt"]
# A node that every build of the CUDA provider has.
TRIAL = '<ir_version: 9, opset_import: ["": 18]> g (float[2] x) => (float[2] y) { y = Relu(x) }'


@dataclass(frozen=True)
class Chosen:
    """A runtime. `reason` tells in one line why it was taken, empty where the user named it."""

    runtime: Runtime
    reason: str = ""


def choose_runtime(asked: Asked, artifact: Artifact, precision: GraphPrecision = "fp32") -> Chosen:
    """What runs a file of ours: as asked, or an engine's own TensorRT, or the first of CUDA,
    OpenVINO and ONNX Runtime on the CPU that is able to and gains something by it.

    Args:
        asked: by the user.
        artifact: an ONNX file or an engine.
        precision: of the arithmetic; another than fp32 is OpenVINO's.

    Raises:
        DeblurExportError: an engine for another runtime than TensorRT, or TensorRT for an ONNX
            file.
    """
    path = artifact.path
    if is_engine(path):
        if asked not in ("auto", "tensorrt") or precision != "fp32":
            raise DeblurExportError(
                f"{path} is an engine: TensorRT alone runs it, in the precision it was built in; "
                "leave --runtime and --precision out"
            )
        return Chosen("tensorrt", "" if asked == "tensorrt" else "tensorrt, as it is an engine")
    if asked == "tensorrt":
        raise DeblurExportError(
            f"{path}: TensorRT runs engines; build one with deblur-export trt {path}"
        )
    if asked != "auto":
        return Chosen(asked)
    if precision != "fp32":
        return Chosen("openvino", f"openvino, which alone has --precision {precision}")
    refusals = []
    for runtime, judge in CANDIDATES:
        able, words = judge(artifact)
        if able:
            return Chosen(runtime, f"{runtime}, as {words}")
        refusals.append(words)
    return Chosen("onnxruntime", f"onnxruntime on the CPU, as {' and '.join(refusals)}")


def _cuda(artifact: Artifact) -> tuple[bool, str]:
    """Whether ONNX Runtime's CUDA is to be taken, and why or why not."""
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return False, "this ONNX Runtime has no CUDA"
    if gpu_count() == 0:
        return False, "there is no CUDA device"
    precision = artifact.manifest["precision"]
    if precision not in ("fp32", "fp16"):
        return False, f"its CUDA kernels lack {precision}"
    if not _cuda_starts():
        return False, "its CUDA does not start here (CUDA and cuDNN libraries)"
    return True, "a CUDA device is there and it starts"


def _cuda_starts() -> bool:
    """Whether a session gets the provider: without its libraries it silently goes on without."""
    try:
        session = onnxruntime.InferenceSession(
            parse_model(TRIAL).SerializeToString(),
            providers=[CUDA_PROVIDER, "CPUExecutionProvider"],
        )
        session.run(None, {"x": np.ones(2, np.float32)})
    except Exception:  # the bindings raise several unrelated types
        return False
    return CUDA_PROVIDER in session.get_providers()


def _openvino(artifact: Artifact) -> tuple[bool, str]:
    """As `_cuda`."""
    manifest = artifact.manifest
    precision, target = manifest["precision"], manifest["target"]
    unsigned = manifest.get("calibration", {}).get("layout") == "cpu"
    if precision not in ("fp32", "bf16") and not (precision == "int8" and unsigned):
        return False, f"the file is {precision}"
    if TARGETS[target].belongs_to not in ("", "openvino"):
        return False, f"the file was exported with --target {target}"
    try:
        import openvino
    except ImportError:
        return False, "OpenVINO is not installed"
    if precision == "bf16":
        return True, "ONNX Runtime has no bf16 on the CPU"
    ops = manifest["custom_ops"]
    if ops and (reason := openvino_library.find(openvino.__version__).reason):
        return False, f"OpenVINO has no native kernels of its custom ops ({reason})"
    native = " with native kernels of the custom ops" * bool(ops)
    return True, f"it is installed{native} and the file is {precision}"


CANDIDATES: tuple[tuple[Runtime, Callable[[Artifact], tuple[bool, str]]], ...] = (
    ("onnxruntime-cuda", _cuda),
    ("openvino", _openvino),
)
