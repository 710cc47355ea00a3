"""Runners of Polygraphy for PyTorch and for an artifact on a runtime."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.datatype import DataType
from torch import Tensor, nn

from deblur_export.export.runtimes.session import Session
from deblur_export.plugins.libraries import cpu

Arrays = Mapping[str, NDArray[np.float32]]


class TorchRunner(BaseRunner):  # type: ignore[misc]
    """Runs a restoration network in eval mode in PyTorch.

    Custom ops are computed by their definitions in PyTorch: native kernels, which other runtimes
    may use as well, are not a reference. (The PytRunner of Polygraphy requires CUDA and splits a
    single output along its batch axis.)

    The feed has the key "image", [N, C, H, W]. The outputs are "restored" and the outputs of the
    modules named in `modules`, each of which must be called exactly once.
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
            self._captured[name] = output.clone()  # the next layer may write into it

        return hook

    def get_input_metadata_impl(self) -> Any:
        return image_metadata()

    def infer_impl(self, feed_dict: Arrays) -> OrderedDict[str, NDArray[np.float32]]:
        image = torch.from_numpy(np.asarray(feed_dict["image"]))
        start = time.perf_counter()
        with torch.no_grad(), cpu.switched_off():
            restored = self.net(image)
        self.inference_time = time.perf_counter() - start
        outputs = OrderedDict(restored=restored.numpy())
        outputs.update({name: self._captured[name].numpy() for name in self.modules})
        return outputs

    def deactivate_impl(self) -> None:
        for handle in self._handles:
            handle.remove()


class SessionRunner(BaseRunner):  # type: ignore[misc]
    """Runs an artifact in a session of `runtimes`."""

    def __init__(self, session: Session) -> None:
        super().__init__(name=session.title)
        self.session = session

    def get_input_metadata_impl(self) -> Any:
        return image_metadata()

    def infer_impl(self, feed_dict: Arrays) -> OrderedDict[str, NDArray[Any]]:
        start = time.perf_counter()
        outputs = self.session.run({"image": np.asarray(feed_dict["image"])})
        self.inference_time = time.perf_counter() - start
        return OrderedDict(outputs)


def image_metadata() -> Any:
    """The description of the input for Polygraphy."""
    metadata = TensorMetadata()
    metadata.add("image", dtype=DataType.FLOAT32, shape=(None, None, None, None))
    return metadata
