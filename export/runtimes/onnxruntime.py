"""ONNX Runtime, on the CPU and on CUDA."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx.parser import parse_model

from deblur_export.artifact import Artifact, ModelFile
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import with_outputs
from deblur_export.export.runtimes.backend import PROFILED_RUNS, Backend, Opening, Verdict
from deblur_export.export.runtimes.emulated_session import EmulatedSession
from deblur_export.export.runtimes.gpu import gpu_count
from deblur_export.export.runtimes.onnxruntime_release import cannot_load
from deblur_export.export.runtimes.ort_options import session_options
from deblur_export.export.runtimes.probe import Finding, try_package
from deblur_export.export.runtimes.session import (
    FLOATS,
    Arrays,
    Session,
    failed,
    typed,
    widened,
)
from deblur_export.onnx_reading import first_line
from deblur_export.precision import LOW
from deblur_export.temporary import temporary_folder

CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
# A node that every build of the CUDA provider has.
TRIAL = '<ir_version: 9, opset_import: ["": 18]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
PROBE = """
import onnx, onnxruntime
text = '<ir_version: 9, opset_import: ["": 18]> g (float[2] x) => (float[2] y) { y = Abs(x) }'
model = onnx.parser.parse_model(text).SerializeToString()
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
import numpy; session.run(None, {"x": numpy.ones(2, numpy.float32)})
"""


class OnnxRuntimeSession:
    """Runs a file on the CPU, or on the first CUDA device (without TF32). `trace`, a path without
    a suffix, is where it writes the time of every node."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        file: ModelFile,
        extra_outputs: tuple[str, ...] = (),
        threads: int = 0,
        cuda: bool = False,
        trace: Path | None = None,
    ) -> None:
        self.title = f"ONNX Runtime {onnxruntime.__version__} {'CUDA' if cuda else 'CPU'}"
        if cuda and CUDA_PROVIDER not in onnxruntime.get_available_providers():
            raise DeblurExportError(
                "this ONNX Runtime is built without CUDA; pip install onnxruntime-gpu in place of "
                "onnxruntime, or leave --runtime onnxruntime-cuda out"
            )
        providers: list[Any] = [(CUDA_PROVIDER, {"use_tf32": "0"})] if cuda else []
        options = session_options(threads)
        if trace is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(trace)
        # Without further outputs ONNX Runtime reads the file itself, which needs less memory; it
        # infers no shapes from constants that are in another file, though.
        model = (
            with_outputs(file.proto, extra_outputs).SerializeToString()
            if extra_outputs or file.weight_files
            else str(file.path)
        )
        try:
            self.session = onnxruntime.InferenceSession(
                model, options, providers=[*providers, CPU_PROVIDER]
            )
        except Exception as error:  # the bindings raise several unrelated types
            raise cannot_load(file.path, file.proto, error) from error
        if cuda and CUDA_PROVIDER not in self.session.get_providers():
            raise DeblurExportError(  # it goes on with the CPU
                f"{file.path}: ONNX Runtime could not start CUDA; its libraries (CUDA, cuDNN) or a "
                "device are missing: use --runtime onnxruntime"
            )
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.types = {value.name: FLOATS.get(value.type) for value in self.session.get_inputs()}

    def run(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        try:
            values = self.session.run(self.outputs, typed(feed, self.types))
        except Exception as error:  # as above
            raise failed("ONNX Runtime", feed, first_line(error)) from error
        return dict(zip(self.outputs, map(widened, values), strict=True))


class OnnxRuntimeCpu(Backend):
    """Runs every ONNX file on every machine."""

    title = "ONNX Runtime"
    package = "onnxruntime"
    computes = ("fp32", "fp16", "int8")
    bench_targets = ("portable", "ort")

    def able(self, artifact: Artifact) -> Verdict:
        return Verdict(True, "it runs every file")

    def load(self, file: ModelFile, how: Opening) -> Session:
        return OnnxRuntimeSession(file, how.extra_outputs, how.threads)

    def load_reproducible(self, artifact: Artifact, how: Opening) -> Session:
        """As `load`, but low floating-point precision is emulated, so that the result does not
        depend on the processor."""
        low = artifact.manifest.high_precision  # of the layers that are not int8
        if low in LOW:
            return EmulatedSession(artifact, low, how.extra_outputs)
        return self.load(artifact, how)

    def check(self, artifact: Artifact) -> None:
        precision = artifact.manifest.precision
        if precision not in self.computes:
            raise DeblurExportError(
                f"{artifact.path} is {precision}, which ONNX Runtime does not compute on the CPU: "
                "use --runtime openvino, or a file in fp32 or fp16"
            )

    def profile(self, file: ModelFile, feed: Arrays, how: Opening) -> Counter[str]:
        with temporary_folder() as folder:
            session = OnnxRuntimeSession(
                file, how.extra_outputs, how.threads, trace=folder / "profile"
            )
            for _ in range(1 + PROFILED_RUNS):
                session.run(feed)
            events = json.loads(Path(session.session.end_profiling()).read_text(encoding="utf-8"))
        return _by_operator(events)

    def findings(self) -> Iterable[Finding]:
        yield try_package(self.package, PROBE, "deblur-export", runs=self.title)


class OnnxRuntimeCuda(Backend):
    """The CUDA provider of a build that has it."""

    title = "ONNX Runtime CUDA"
    package = "onnxruntime"
    computes = ("fp32", "fp16")

    def able(self, artifact: Artifact) -> Verdict:
        if CUDA_PROVIDER not in onnxruntime.get_available_providers():
            return Verdict(False, "this ONNX Runtime has no CUDA")
        if gpu_count() == 0:
            return Verdict(False, "there is no CUDA device")
        precision = artifact.manifest.precision
        if precision not in self.computes:
            return Verdict(False, f"its CUDA kernels lack {precision}")
        if not _cuda_starts():
            return Verdict(False, "its CUDA does not start here (CUDA and cuDNN libraries)")
        return Verdict(True, "a CUDA device is there and it starts")

    def load(self, file: ModelFile, how: Opening) -> Session:
        return OnnxRuntimeSession(file, how.extra_outputs, how.threads, cuda=True)

    def loads(self, path: Path, name: str) -> Iterable[Finding]:
        if CUDA_PROVIDER in onnxruntime.get_available_providers():
            yield from super().loads(path, name)


CPU, CUDA = OnnxRuntimeCpu(), OnnxRuntimeCuda()


def _cuda_starts() -> bool:
    """Whether a session uses the CUDA provider: without the CUDA libraries ONNX Runtime silently
    continues on the CPU."""
    try:
        session = onnxruntime.InferenceSession(
            parse_model(TRIAL).SerializeToString(),
            session_options(),
            providers=[CUDA_PROVIDER, CPU_PROVIDER],
        )
        session.run(None, {"x": np.ones(2, np.float32)})
    except Exception:  # the bindings raise several unrelated types
        return False
    return CUDA_PROVIDER in session.get_providers()


def _by_operator(events: list[dict[str, Any]]) -> Counter[str]:
    """Seconds per operator type of one run, from ONNX Runtime's trace (microseconds); the first
    run does not count."""
    runs = sorted((e for e in events if e.get("name") == "model_run"), key=lambda e: e["ts"])
    start = runs[0]["ts"] + runs[0]["dur"]
    seconds: Counter[str] = Counter()
    for event in events:
        name = event.get("args", {}).get("op_name")
        # An If or Scan contains its body, whose nodes have entries of their own.
        if name and event["ts"] >= start and name not in ("If", "Scan", "Loop"):
            seconds[name] += event["dur"] / 1e6 / (len(runs) - 1)
    return seconds
