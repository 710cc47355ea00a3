"""Polygraphy runners: PyTorch on the CPU or CUDA, and ONNX Runtime."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnxrt import OnnxrtRunner
from polygraphy.common import TensorMetadata
from polygraphy.datatype import DataType
from torch import Tensor, nn

Arrays = Mapping[str, NDArray[np.float32]]


class TorchRunner(BaseRunner):  # type: ignore[misc]
    """Runs a restoration network in eval mode.

    Polygraphy's own PytRunner insists on CUDA and takes a single output apart along its batch
    axis. The feed has "image" [N, 3, H, W]. The outputs are "restored" and the outputs of the
    modules named in `modules`, each of which must be called once.
    """

    def __init__(
        self, net: nn.Module, name: str = "PyTorch", modules: tuple[str, ...] = ()
    ) -> None:
        super().__init__(name=name)
        self.net = net
        self.modules = modules

    def activate_impl(self) -> None:
        self._captured: dict[str, Tensor] = {}
        self._handles = [
            self.net.get_submodule(name).register_forward_hook(self._capture(name))
            for name in self.modules
        ]

    def _capture(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            self._captured[name] = output

        return hook

    def get_input_metadata_impl(self) -> Any:
        metadata = TensorMetadata()
        metadata.add("image", dtype=DataType.FLOAT32, shape=(None, 3, None, None))
        return metadata

    def infer_impl(self, feed_dict: Arrays) -> OrderedDict[str, NDArray[np.float32]]:
        image = torch.from_numpy(np.asarray(feed_dict["image"]))
        start = time.perf_counter()
        with torch.no_grad():
            restored = self.net(image)
        self.inference_time = time.perf_counter() - start
        outputs = OrderedDict(restored=restored.numpy())
        outputs.update({name: self._captured[name].numpy() for name in self.modules})
        return outputs

    def deactivate_impl(self) -> None:
        for handle in self._handles:
            handle.remove()


def onnxruntime_runner(path: Path, extra_outputs: tuple[str, ...] = ()) -> Any:
    """ONNX Runtime on the CPU; `extra_outputs` are inner values to return as well."""
    options = onnxruntime.SessionOptions()
    # Waiting threads that spin slow a busy machine down tenfold and gain nothing here.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        with_outputs(path, extra_outputs), options, providers=["CPUExecutionProvider"]
    )
    return OnnxrtRunner(session, name="ONNX Runtime")


def with_outputs(path: Path, names: tuple[str, ...]) -> bytes:
    """The file as bytes, with the inner values `names` as further outputs."""
    model = onnx.load(path)
    known = {info.name: info for info in model.graph.value_info}
    model.graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in names)
    return model.SerializeToString()  # type: ignore[no-any-return]


def inner_values(path: Path) -> list[str]:
    """Names of the values of the main graph, in execution order."""
    model = onnx.load(path, load_external_data=False)
    return [name for node in model.graph.node for name in node.output]
