"""The runtimes that execute a file on this machine, behind one small protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError
from deblur_export.export.engine_file import read_engine
from deblur_export.plugins import openvino_extension

Runtime = Literal["onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt"]
Precision = Literal["f32", "bf16", "f16"]
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "f16")
# What OpenVINO calls them among a processor's capabilities.
CAPABILITY: Mapping[Precision, str] = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
CUDA_PROVIDER = "CUDAExecutionProvider"
FLOATS: Mapping[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
Arrays = Mapping[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]


class Session(Protocol):
    """A file, loaded. `title` names the runtime, its version and its precision for reports; `notes`
    are for the user."""

    title: str
    notes: tuple[str, ...]

    def run(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        """Values of the inputs by name -> values of the outputs by name.

        Float32 outside, also of a file whose input and output are float16.

        Raises:
            DeblurExportError: the runtime failed, for lack of memory for instance.
        """
        ...


def open_session(
    path: Path,
    runtime: Runtime = "onnxruntime",
    extra_outputs: tuple[str, ...] = (),
    precision: Precision = "f32",
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
        from deblur_export.export.engine_session import EngineSession

        if extra_outputs:
            raise DeblurExportError(f"{path}: an engine has no values but its output")
        return EngineSession(read_engine(path), plugins)
    if runtime == "openvino":
        return OpenVinoSession(path, extra_outputs, precision, threads)
    if precision != "f32":
        raise DeblurExportError(
            "ONNX Runtime computes in the precision of the graph; --precision is for OpenVINO"
        )
    return OnnxRuntimeSession(path, extra_outputs, threads, runtime == "onnxruntime-cuda")


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
            values = self.session.run(self.outputs, _typed(feed, self.types))
        except Exception as error:  # as above
            raise _failed("ONNX Runtime", feed, error) from error
        return dict(zip(self.outputs, map(_widened, values), strict=True))


class OpenVinoSession:
    """OpenVINO on the CPU, with the native ops where their library fits, else with the bodies of
    the ops in place of their nodes. It computes in bf16 by default where the processor can, so
    that the precision is always set here.

    It fuses more and turns fewer tensors where sizes are fixed: a second image of the same size
    gets a model of its own, which lasts until the size changes. With `counting` it takes the time
    of every node."""

    request: Any  # of the model that fits the last size

    def __init__(
        self,
        path: Path,
        extra_outputs: tuple[str, ...] = (),
        precision: Precision = "f32",
        threads: int = 0,
        counting: bool = False,
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise DeblurExportError(
                "OpenVINO is not installed; pip install 'deblur-export[openvino]'"
            ) from error
        core, release = openvino_extension.shared_core(), openvino.__version__.split("-")[0]
        _check_precision(core, precision)
        file = _extended(path, extra_outputs)
        native = False
        self.notes: tuple[str, ...] = ()
        if file.functions:
            reason = _add_native_ops(core, release)
            native = not reason
            if reason:
                self.notes = (f"OpenVINO runs the custom ops as standard operators: {reason}",)
                file = inlined(file)
        self.title = f"OpenVINO {release} CPU{' with native ops' * native}, {precision}"
        self.core, self.file, self.native, self.precision = core, file, native, precision
        self.config = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self.config["INFERENCE_NUM_THREADS"] = str(threads)
        if counting:
            self.config["PERF_COUNT"] = "YES"
        self.last: Shapes = {}  # of the run before
        self.fixed: Shapes | None = None  # those that the model is made for
        try:
            self._compile(None)
        except RuntimeError as error:
            notes = "".join(f"; {note}" for note in self.notes)
            reason = str(error).strip().splitlines()[-1]
            raise DeblurExportError(f"{path}: OpenVINO cannot load it: {reason}{notes}") from error
        model = self.request.get_compiled_model()
        self.outputs = [output.get_any_name() for output in model.outputs]
        self.types = {
            value.get_any_name(): value.get_element_type().to_dtype() for value in model.inputs
        }

    def run(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        try:
            self._fit({name: value.shape for name, value in feed.items()})
            values = self.request.infer(_typed(feed, self.types))
        except RuntimeError as error:
            raise _failed("OpenVINO", feed, error) from error
        return {name: _widened(np.array(values[i])) for i, name in enumerate(self.outputs)}

    def seconds_by_type(self) -> Iterator[tuple[str, Any]]:
        """Type and seconds of every node in the run before."""
        for node in self.request.get_profiling_info():
            yield node.node_type, node.real_time.total_seconds()

    def _fit(self, shapes: Shapes) -> None:
        repeated, self.last = shapes == self.last, shapes
        if shapes == self.fixed or not (repeated or self.fixed):
            return
        self.request = None  # gives its memory back first
        self.fixed = shapes if repeated else None
        self._compile(self.fixed)

    def _compile(self, shapes: Shapes | None) -> None:
        file = self.file if shapes is None else _with_shapes(self.file, shapes)
        model = self.core.read_model(model=file.SerializeToString())
        if self.native:
            openvino_extension.adapt(model, self.precision)
        self.request = self.core.compile_model(model, "CPU", self.config).create_infer_request()


def _with_shapes(model: onnx.ModelProto, shapes: Shapes) -> onnx.ModelProto:
    """A copy whose inputs have these shapes."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    return fixed


def _check_precision(core: Any, precision: Precision) -> None:
    """OpenVINO takes a hint that the processor cannot follow and computes in something else."""
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if CAPABILITY[precision] not in able:
        having = ", ".join(name for name in PRECISIONS if CAPABILITY[name] in able)
        raise DeblurExportError(f"OpenVINO has no {precision} on this processor; it has {having}")


def _add_native_ops(core: Any, release: str) -> str:
    """Returns why they cannot be had, in one line; empty if `core` has them now."""
    path, reason = openvino_extension.find(release)
    if path is None:
        return reason
    try:
        core.add_extension(str(path))
    except RuntimeError as error:
        return f"{path}: {str(error).strip().splitlines()[-1]}"
    return ""


def _typed(feed: Arrays, types: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The feed in the types that the file declares."""
    return {name: np.asarray(value, types.get(name)) for name, value in feed.items()}


def _widened(value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _failed(name: str, feed: Arrays, error: Exception) -> DeblurExportError:
    shapes = ", ".join("x".join(map(str, value.shape)) for value in feed.values())
    reason = str(error).strip().splitlines()[0]
    return DeblurExportError(
        f"{name} failed on {shapes}, perhaps for lack of memory; try --tile 512 ({reason})"
    )


def with_outputs(path: Path, names: tuple[str, ...]) -> bytes:
    """The file as bytes, with the inner values `names` as further outputs."""
    return _extended(path, names).SerializeToString()  # type: ignore[no-any-return]


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The bodies of the custom ops in place of their nodes."""
    from onnx.inliner import inline_local_functions

    return inline_local_functions(model)


def _extended(path: Path, names: tuple[str, ...]) -> onnx.ModelProto:
    model = onnx.load(path)
    known = {info.name: info for info in model.graph.value_info}
    model.graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in names)
    return model


def inner_values(path: Path) -> list[str]:
    """Names of the values of the main graph, in execution order."""
    model = onnx.load(path, load_external_data=False)
    return [name for node in model.graph.node for name in node.output]
