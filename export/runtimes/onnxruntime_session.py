"""A file on ONNX Runtime, on the CPU or on CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes.graph_values import with_outputs
from deblur_export.export.runtimes.session import FLOATS, Arrays, failed, typed, widened

CUDA_PROVIDER = "CUDAExecutionProvider"


class OnnxRuntimeSession:
    """ONNX Runtime on the CPU, or on the first CUDA device (without TF32)."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        path: Path,
        extra_outputs: tuple[str, ...] = (),
        threads: int = 0,
        cuda: bool = False,
    ) -> None:
        self.title = f"ONNX Runtime {onnxruntime.__version__} {'CUDA' if cuda else 'CPU'}"
        if cuda and CUDA_PROVIDER not in onnxruntime.get_available_providers():
            raise DeblurExportError(
                "this ONNX Runtime is built without CUDA; pip install onnxruntime-gpu in place of "
                "onnxruntime, or leave --runtime onnxruntime-cuda out"
            )
        providers: list[Any] = [(CUDA_PROVIDER, {"use_tf32": "0"})] if cuda else []
        options = onnxruntime.SessionOptions()
        # Waiting threads that spin slow a busy machine down tenfold and gain nothing here.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = threads
        model = with_outputs(path, extra_outputs) if extra_outputs else str(path)
        try:
            self.session = onnxruntime.InferenceSession(
                model, options, providers=[*providers, "CPUExecutionProvider"]
            )
        except Exception as error:  # the bindings raise several unrelated types
            raise DeblurExportError(
                f"{path}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}"
            ) from error
        if cuda and CUDA_PROVIDER not in self.session.get_providers():
            raise DeblurExportError(  # it says so on stderr and goes on with the CPU
                f"{path}: ONNX Runtime could not start CUDA; its libraries (CUDA, cuDNN) or a "
                "device are missing: use --runtime onnxruntime"
            )
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.types = {value.name: FLOATS.get(value.type) for value in self.session.get_inputs()}

    def run(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        try:
            values = self.session.run(self.outputs, typed(feed, self.types))
        except Exception as error:  # as above
            raise failed("ONNX Runtime", feed, error) from error
        return dict(zip(self.outputs, map(widened, values), strict=True))
