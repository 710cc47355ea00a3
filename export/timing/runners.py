"""Runs a candidate inside a worker: a network in PyTorch, or a file on a backend."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes.open import open_session
from deblur_export.export.timing.jobs import TORCH, Job
from deblur_export.export.timing.machine import bf16_reason
from deblur_export.precision import PRECISIONS

Feed = Mapping[str, NDArray[np.float32]]


class Runner(Protocol):
    """A loaded candidate; `title` says what runs in which precision, `notes` are for the user."""

    title: str
    notes: tuple[str, ...]

    def run(self, feed: Feed) -> NDArray[np.float32]:
        """Restore the image of a feed; returns float32 [1, 3, H, W]."""
        ...


def open_runner(job: Job) -> Runner:
    """Load the candidate of a job.

    Raises:
        DeblurExportError: it cannot run on this machine; the message says why.
    """
    if job.adopted is not None:
        return OriginalRunner(job)
    return NetworkRunner(job) if job.engine == TORCH else FileRunner(job)


class FileRunner:
    """An ONNX file on one of the backends."""

    def __init__(self, job: Job) -> None:
        assert job.file is not None and job.engine != TORCH
        path = Path(job.file)
        self.session = open_session(path, job.engine, (), job.precision, job.threads)
        self.title, self.notes = self.session.title, self.session.notes

    def run(self, feed: Feed) -> NDArray[np.float32]:
        return self.session.run(feed)["restored"]


class OriginalRunner:
    """The file that another was adopted from, on ONNX Runtime; images are converted to what it
    wants, and back, within the measured time."""

    def __init__(self, job: Job) -> None:
        from deblur_export.artifact import read_artifact
        from deblur_export.export.parity.onnx_reference import original

        assert job.adopted is not None
        self.reference = original(read_artifact(Path(job.adopted)), job.threads)
        self.title, self.notes = self.reference.title, self.reference.notes

    def run(self, feed: Feed) -> NDArray[np.float32]:
        return self.reference.run(feed["image"]).restored


class NetworkRunner:
    """The network as it was trained, in PyTorch."""

    notes: tuple[str, ...] = ()

    def __init__(self, job: Job) -> None:
        import torch

        from deblur_export.export.timing.coverage import ForcedChoice

        if job.precision != "fp32" and (reason := bf16_reason()):
            raise DeblurExportError(reason)
        assert job.network is not None
        torch.set_num_threads(job.threads)
        # The native kernels are for inference: they refuse tensors that require a gradient.
        net = job.network.load().net.requires_grad_(False)
        if job.decision is not None:
            net = ForcedChoice(net, job.decision).eval()
        self.net: Any = _compiled(net) if job.compiled else net
        self.job = job
        mode = "compiled by inductor" if job.compiled else "eager"
        kernels = " with native kernels" * job.native
        precision = job.precision + " autocast" * (job.precision != "fp32")
        self.title = f"PyTorch {torch.__version__} {mode}{kernels}, {precision}"

    def run(self, feed: Feed) -> NDArray[np.float32]:
        import torch

        from deblur_export.plugins.libraries import cpu

        tensors = [torch.from_numpy(value) for value in feed.values()]
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if not self.job.native:
                stack.enter_context(cpu.switched_off())
            if self.job.precision != "fp32":
                dtype = getattr(torch, PRECISIONS[self.job.precision].dtype)
                stack.enter_context(torch.autocast("cpu", dtype))
            output = self.net(*tensors)
        restored = output if self.job.decision is None else output[0]
        return restored.float().numpy()  # type: ignore[no-any-return]


def _compiled(net: Any) -> Any:
    """Compile with the best settings of Inductor for inference: fixed sizes, constant weights."""
    import torch
    import torch._inductor.config

    from deblur_export.plugins.compile.cpu import BuildError, compiler

    try:
        compiler()
    except BuildError as error:
        raise DeblurExportError(f"torch.compile: {error}") from error
    torch._inductor.config.freezing = True
    return torch.compile(net, dynamic=False)
