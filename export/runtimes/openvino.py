"""OpenVINO's CPU plugin, with the native custom ops where their library fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deblur_export.artifact import Artifact, ModelFile
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import copied, inlined, inlined_path, with_outputs
from deblur_export.export.runtimes.backend import PROFILED_RUNS, Backend, Opening, Verdict
from deblur_export.export.runtimes.loading import OPEN, try_file
from deblur_export.export.runtimes.probe import (
    Finding,
    installed,
    trial,
    try_package,
    version_tuple,
)
from deblur_export.export.runtimes.session import (
    Arrays,
    Session,
    Shapes,
    failed,
    typed,
    widened,
)
from deblur_export.onnx_reading import graph_errors
from deblur_export.plugins.libraries import openvino as openvino_library
from deblur_export.plugins.spec import ABSENT
from deblur_export.precision import GRAPH_PRECISIONS, GraphPrecision
from deblur_export.shown import shown
from deblur_export.target import TARGETS

# OpenVINO's names of the precisions, as a hint and among the capabilities of a processor.
HINT: Mapping[GraphPrecision, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
CAPABILITY: Mapping[GraphPrecision, str] = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}
PROBE = "import openvino; openvino.Core().available_devices"
OPS_PROBE = """
import numpy, openvino, sys
from onnx.parser import parse_model
core = openvino.Core()
core.add_extension(sys.argv[1])
graph = "g (float[1,1,1,1] x) => (float[1,1,1,1] y) { y = deblur.LocalMean3(x) }"
network = parse_model('<ir_version: 9, opset_import: ["": 18, "deblur": 1]> ' + graph)
model = core.compile_model(core.read_model(network.SerializeToString()), "CPU")
assert model(numpy.ones((1, 1, 1, 1), numpy.float32))[0].item() == 1
"""

# What stock OpenVINO does with a file, without an extension, in any language.
LOAD = """
import openvino, sys
core = openvino.Core()
try:
    core.compile_model(core.read_model(sys.argv[1]), "CPU")
except RuntimeError as error:
    sys.exit(" ".join(str(error).strip().splitlines()[-1:]))
"""
LOOPS_SINCE = (2026, 4)  # 2025.3 crashes on a Scan


class OpenVinoSession:
    """Runs a file on OpenVINO's CPU plugin, with the native custom ops if their library fits,
    otherwise with the function bodies of the ops. OpenVINO computes in bf16 by default on
    processors that support it, so that the precision is always set here.

    OpenVINO fuses more nodes and transposes fewer tensors if sizes are fixed: from the second
    image of the same size on, a model compiled for this size is used until the size changes. With
    `counting` the time of every node is measured."""

    request: Any  # of the model that is compiled for the last size

    def __init__(
        self,
        file: ModelFile,
        extra_outputs: tuple[str, ...] = (),
        precision: GraphPrecision = "fp32",
        threads: int = 0,
        counting: bool = False,
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise DeblurExportError(
                "OpenVINO is not installed; pip install 'deblur-export[openvino]'"
            ) from error
        core, release = openvino_library.shared_core(), openvino.__version__.split("-")[0]
        _check_precision(core, precision)
        path = file.path
        model = with_outputs(file.proto, extra_outputs) if extra_outputs else file.proto
        native = False
        self.notes: tuple[str, ...] = ()
        if model.functions:
            reason = _without_gaps(model) or _add_native_ops(core, release)
            native = not reason
            if reason:
                self.notes = (f"OpenVINO runs the custom ops as standard operators: {reason}",)
                with graph_errors(path):
                    model = inlined(model)
        if not native and has_loops(model) and version_tuple(release) < LOOPS_SINCE:
            raise DeblurExportError(
                f"{path}: OpenVINO {release} does not load loops (Scan); export with --target "
                "openvino, or use --runtime onnxruntime"
            )
        self.title = f"OpenVINO {release} CPU{' with native ops' * native}, {precision}"
        self.core, self.proto, self.native, self.hint = core, model, native, HINT[precision]
        self.config = {"INFERENCE_PRECISION_HINT": self.hint, "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self.config["INFERENCE_NUM_THREADS"] = str(threads)
        if counting:
            self.config["PERF_COUNT"] = "YES"
        self.last: Shapes = {}  # of the previous run
        self.fixed: Shapes | None = None  # those for which the model is compiled
        try:
            self._compile(None)
            compiled = self.request.get_compiled_model()
            self.outputs = [output.get_any_name() for output in compiled.outputs]
            self.types = {
                value.get_any_name(): value.get_element_type().to_dtype()
                for value in compiled.inputs
            }
        except Exception as error:  # RuntimeError, and what other code throws in the process
            notes = "".join(f"; {note}" for note in self.notes)
            raise DeblurExportError(
                f"{path}: OpenVINO cannot load it: {_reason(error)}{notes}"
            ) from error

    def run(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        try:
            shapes = {name: value.shape for name, value in feed.items()}
            self._fit(shapes)
            # With one thread, infer() loses the errors of all nodes and answers with what was in
            # memory (2025.3 to 2026.4); wait() raises them.
            self.request.start_async(typed(feed, self.types))
            self.request.wait()
            values = [self.request.get_output_tensor(i).data for i in range(len(self.outputs))]
            return {n: widened(np.array(v)) for n, v in zip(self.outputs, values, strict=True)}
        except Exception as error:  # RuntimeError, TypeError for tensors that cannot be arrays
            raise failed("OpenVINO", feed, _reason(error)) from error

    def seconds_by_type(self) -> Iterator[tuple[str, Any]]:
        """Type and seconds of every node in the previous run."""
        for node in self.request.get_profiling_info():
            yield node.node_type, node.real_time.total_seconds()

    def _fit(self, shapes: Shapes) -> None:
        repeated, self.last = shapes == self.last, shapes
        if shapes == self.fixed or not (repeated or self.fixed):
            return
        self.request = None  # frees its memory first
        self.fixed = shapes if repeated else None
        self._compile(self.fixed)

    def _compile(self, shapes: Shapes | None) -> None:
        proto = self.proto if shapes is None else _with_shapes(self.proto, shapes)
        model = self.core.read_model(model=proto.SerializeToString())
        if self.native:
            openvino_library.adapt(model, self.hint)
        self.request = self.core.compile_model(model, "CPU", self.config).create_infer_request()


def _reason(error: Exception) -> str:
    """The line of OpenVINO's report that says most, or its last one."""
    lines = [line.removeprefix("-- ").strip() for line in str(error).strip().splitlines()]
    summary = ("No conversion rule found for", "Conversion is failed for")
    found = [line for start in summary for line in lines if line.startswith(start)]
    return shown(next(iter(found + lines[-1:]), type(error).__name__))


def _with_shapes(model: onnx.ModelProto, shapes: Shapes) -> onnx.ModelProto:
    """A copy whose inputs have these shapes."""
    fixed = copied(model)
    for value in fixed.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    return fixed


def _check_precision(core: Any, precision: GraphPrecision) -> None:
    """Refuse a precision that the processor lacks: OpenVINO accepts the hint nevertheless and
    computes in another precision."""
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if CAPABILITY[precision] not in able:
        having = ", ".join(name for name in GRAPH_PRECISIONS if CAPABILITY[name] in able)
        raise DeblurExportError(f"OpenVINO has no {precision} on this processor; it has {having}")


def _without_gaps(model: onnx.ModelProto) -> str:
    """Why the native ops, which know inputs by their positions, cannot read them; or nothing."""
    gaps = any(attribute.name == ABSENT for n in model.graph.node for attribute in n.attribute)
    return "nodes of this target leave out optional inputs" if gaps else ""


def _add_native_ops(core: Any, release: str) -> str:
    """Returns in one line why they are not available; empty once `core` has them."""
    path, reason = openvino_library.find(release)
    if path is None:
        return reason
    try:
        core.add_extension(str(path))
    except RuntimeError as error:
        return f"{path}: {str(error).strip().splitlines()[-1]}"
    return ""


class OpenVino(Backend):
    """OpenVINO's CPU plugin."""

    title = "OpenVINO"
    package = "openvino"
    precisions = GRAPH_PRECISIONS
    computes = ("fp32", "bf16", "int8")
    bench_targets = ("openvino",)
    compiles_second_run = True

    def able(self, artifact: Artifact) -> Verdict:
        manifest = artifact.manifest
        precision, target = manifest.precision, manifest.target
        signed = manifest.layout != "cpu"
        if precision not in self.computes or (precision == "int8" and signed):
            return Verdict(False, f"the file is {precision}")
        if TARGETS[target].belongs_to not in ("", "openvino"):
            return Verdict(False, f"the file was exported with --target {target}")
        try:
            import openvino
        except ImportError:
            return Verdict(False, "OpenVINO is not installed")
        if precision == "bf16":
            return Verdict(True, "ONNX Runtime has no bf16 on the CPU")
        if has_loops(artifact.proto):
            return Verdict(False, "the file has loops (Scan), which OpenVINO seldom loads")
        ops = manifest.custom_ops
        if ops and (reason := openvino_library.find(openvino.__version__).reason):
            return Verdict(False, f"OpenVINO has no native kernels of its custom ops ({reason})")
        native = " with native kernels of the custom ops" * bool(ops)
        return Verdict(True, f"it is installed{native} and the file is {precision}")

    def load(self, file: ModelFile, how: Opening) -> Session:
        return OpenVinoSession(file, how.extra_outputs, how.precision, how.threads)

    def profile(self, file: ModelFile, feed: Arrays, how: Opening) -> Counter[str]:
        session = OpenVinoSession(file, precision=how.precision, threads=how.threads, counting=True)
        seconds: Counter[str] = Counter()
        for run in range(2 + PROFILED_RUNS):  # the second compiles for the size
            session.run(feed)
            if run > 1:
                for name, time in session.seconds_by_type():
                    seconds[name] += time / PROFILED_RUNS
        return seconds

    def loads(self, path: Path, name: str) -> Iterable[Finding]:
        if not installed(self.package):
            return
        stock = try_file(self.title, self.package, LOAD, path)
        if not ModelFile(path).proto.functions:
            yield stock
            return
        yield try_file("OpenVINO in deblur-export", self.package, OPEN, path, name)
        beside = inlined_path(path)
        there = f"take {beside}" if beside.is_file() else "onnx --inline writes a file for it"
        why = f"it has custom ops; {there} ({stock.note})"
        yield replace(stock, name="stock OpenVINO", note=stock.note and why)

    def findings(self) -> Iterable[Finding]:
        yield try_package(self.package, PROBE, "deblur-export[openvino]", runs=self.title)
        yield _try_native_ops(installed(self.package))


OPENVINO = OpenVino()


def has_loops(model: onnx.ModelProto) -> bool:
    """Whether there are loops outside of function bodies: in a file whose ops were inlined."""
    return any(node.op_type == "Scan" for node in model.graph.node)


def _try_native_ops(release: str) -> Finding:
    """Whether a model of one custom op runs in OpenVINO."""
    name = "native ops for OpenVINO"
    if not release:
        return Finding(name, "-", False, "OpenVINO is not installed")
    path, reason = openvino_library.find(release)
    if path is None:
        return Finding(name, "-", False, reason)
    works, lines = trial(OPS_PROBE, str(path))
    return Finding(name, release if works else "-", works, "" if works else lines[-1])
