"""The builder API that TensorRT and TensorRT for RTX share; `trt` is either module."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from deblur_export.engine_record import Census, Profile
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines.options import BuildOptions
from deblur_export.export.runtimes.nvinfer_log import last, readable
from deblur_export.precision import PRECISIONS

GIB = 1 << 30
# Layers that carry nearly all of the arithmetic.
COMPUTE_LAYERS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
PRECISION_OF = {precision.tensorrt: name for name, precision in PRECISIONS.items()}


class CannotBuildHereError(DeblurExportError):
    """A builder is not installed, too old, or lacks a GPU."""


@dataclass(frozen=True)
class Built:
    """A serialized engine.

    Attributes:
        data: the serialized engine.
        network: counts the layers of the parsed network by type.
        engine: counts the layers that the engine itself shows; None if it shows none.
        layers: JSON of the engine inspector; empty without one.
        notes: lines for the user.
        plugins: libraries that the engine needs to run.
        expected: what `engine` is if the builder kept every type; None if that is `network`.
    """

    data: bytes
    network: Census
    engine: Census | None
    layers: str = ""
    notes: tuple[str, ...] = ()
    plugins: tuple[Path, ...] = ()
    expected: Census | None = None


class Listener(Protocol):
    """Is told the progress of a build. Phases nest; their names are those of TensorRT."""

    def start(self, phase: str, parent: str | None, steps: int) -> None: ...

    def step(self, phase: str, step: int) -> None: ...

    def finish(self, phase: str) -> None: ...


@dataclass(frozen=True)
class Parsed:
    """A network and the objects that must live as long: the parser owns the network's weights."""

    builder: Any
    network: Any
    parser: Any
    log: Any


def parse(trt: ModuleType, graph: bytes, log: Any, name: str) -> Parsed:
    """Parse the bytes of an ONNX file into a strongly typed network.

    Raises:
        DeblurExportError: the parser does not support the file; the message names the node.
    """
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        error = parser.get_error(0) if parser.num_errors else None
        where = f"node {error.node_name()} ({error.node_operator()}): " if error else ""
        reason = readable(error.desc()) if error else last(log)
        raise DeblurExportError(f"{name}: the ONNX parser does not support it: {where}{reason}")
    return Parsed(builder, network, parser, log)


def census(trt: ModuleType, network: Any) -> Census:
    """Count the parsed arithmetic layers by the type of their input. A layer counts as int8 if
    both of its operands come from a dequantization, which the builder fuses into the layer."""
    kinds = [getattr(trt.LayerType, name) for name in COMPUTE_LAYERS]
    layers = list(map(network.get_layer, range(network.num_layers)))
    dequantized = {
        layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE
    }
    counts: dict[str, int] = {}
    for layer in (layer for layer in layers if layer.type in kinds):
        factors = [layer.get_input(i) for i in range(min(layer.num_inputs, 2))]
        name = factors[0].dtype.name
        int8 = len(factors) == 2 and dequantized.issuperset(factor.name for factor in factors)
        precision = "int8" if int8 else PRECISION_OF.get(name, name.lower())
        counts[precision] = counts.get(precision, 0) + 1
    return Census("layers of the parsed network", counts)


def configure(
    trt: ModuleType, parsed: Parsed, profile: Profile | None, options: BuildOptions
) -> Any:
    """The builder settings that both libraries have.

    Raises:
        DeblurExportError: the network does not support the sizes of the profile.
    """
    config = parsed.builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not options.tf32:  # on by default
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace is not None:
        size = int(options.workspace * GIB)
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
    if profile is not None:
        shapes = parsed.builder.create_optimization_profile()
        image = parsed.network.get_input(0).name
        shapes.set_shape(image, profile.smallest, profile.typical, profile.largest)
        if config.add_optimization_profile(shapes) < 0:
            raise DeblurExportError(f"the network does not support these sizes: {last(parsed.log)}")
    return config


def serialize(trt: ModuleType, parsed: Parsed, config: Any, listener: Listener, name: str) -> bytes:
    """Build the engine and return its bytes.

    Raises:
        DeblurExportError: the library could not build it.
        KeyboardInterrupt: SIGINT or SIGTERM came during the build, which was then cancelled.
    """
    stop = threading.Event()
    config.progress_monitor = _monitor(trt, listener, stop)
    with _postponed_signals(stop):
        engine = parsed.builder.build_serialized_network(parsed.network, config)
    if stop.is_set():
        raise KeyboardInterrupt
    if engine is None:
        raise DeblurExportError(f"{name}: no engine could be built: {last(parsed.log)}")
    return bytes(engine)


def _monitor(trt: ModuleType, listener: Listener, stop: threading.Event) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            listener.start(phase, parent, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            listener.step(phase, step)
            return not stop.is_set()

        def phase_finish(self, phase: str) -> None:
            listener.finish(phase)

    return Monitor()


@contextlib.contextmanager
def _postponed_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM only set `stop`: an exception must not pass through the library."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
