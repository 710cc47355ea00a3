"""Shared fixtures: exported artifacts are made once a session, photos come from scikit-image."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import onnxruntime
import pytest
import torch
from filelock import FileLock, Timeout

from deblur_export import models
from deblur_export.artifact import Artifact, read_artifact
from deblur_export.export.pipeline import ExportOptions, trace_model, write_onnx
from deblur_export.models.checkpoint import load_model
from deblur_export.target import TARGETS, TargetName
from tests import needs

# Small tensors gain nothing from a second thread, and next to other busy processes waiting threads
# slow the suite down: torch's tenfold, and those of ONNX Runtime spin.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of commands that tests start
_load_session = onnxruntime.InferenceSession.__init__


def _load_with_one_thread(
    self: onnxruntime.InferenceSession,
    model: Any,
    sess_options: onnxruntime.SessionOptions | None = None,
    *arguments: Any,
    **named: Any,
) -> None:
    options = sess_options or onnxruntime.SessionOptions()
    if options.intra_op_num_threads == 0:  # all cores
        options.intra_op_num_threads = 1
    _load_session(self, model, options, *arguments, **named)


onnxruntime.InferenceSession.__init__ = _load_with_one_thread

Exported = Callable[..., Artifact]
# Tracing these with dynamic sizes takes 20 to 50 s, with a fixed one a third.
FIXED_SIZE = dict.fromkeys(("aibnet", "algnet", "dhnet", "saphn", "ufpnet"), (1, 3, 33, 47))
WARN_ENCODING = "PYTHONWARNDEFAULTENCODING"


def usual_options(model: str, target: TargetName = "portable") -> ExportOptions:
    """How tests that want any file of a network export it: of dynamic size, if that is quick."""
    return ExportOptions(target, FIXED_SIZE.get(model))


def pytest_configure(config: pytest.Config) -> None:
    """Settings of each process.

    The workers of pytest-xdist start with EncodingWarning on, which pyproject.toml makes an error
    where the code is ours; what they start themselves need not warn of other code.
    """
    if hasattr(config, "workerinput"):
        os.environ.pop(WARN_ENCODING, None)
    elif getattr(config.option, "numprocesses", None):
        os.environ[WARN_ENCODING] = "1"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """The last line says what to install for the tests that were skipped."""
    yield
    reports = terminalreporter.stats.get("skipped", ())
    if line := needs.summary(report.longrepr[2] for report in reports):
        terminalreporter.write_line(line)


class Exports:
    """exported(model, variant, weights, options, local) -> artifact; see `usual_options`.

    Tracing takes most of an export and serves all targets, so all of them are written at once, by
    whichever pytest-xdist worker needs one first. A worker that finds another at it does not idle:
    it makes one that the suite needs sooner or later.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def __call__(
        self,
        model: str = "m2aenet",
        variant: str = "tiny",
        weights: str = "random:0",
        options: ExportOptions | None = None,
        local: bool = False,
    ) -> Artifact:
        options = options or usual_options(model)
        wanted = (model, variant, weights, options, local)
        if self._make(*wanted, wait=False) == "busy":
            others = (
                (name, "tiny", "random:0", usual_options(name), False) for name in models.NAMES
            )
            next((other for other in others if self._make(*other, wait=False) == "made"), None)
            self._make(*wanted, wait=True)
        return read_artifact(self._paths(*wanted)[options.target])

    def _make(
        self,
        model: str,
        variant: str,
        weights: str,
        options: ExportOptions,
        local: bool,
        wait: bool,
    ) -> Literal["made", "there", "busy"]:
        paths = self._paths(model, variant, weights, options, local)
        lock = FileLock(paths["portable"].with_suffix(".lock"))
        try:
            held = lock.acquire(blocking=wait)
        except Timeout:
            return "busy"
        with held:
            if all(path.exists() for path in paths.values()):
                return "there"
            loaded = load_model(model, variant, weights, local)
            traced = trace_model(loaded, options)
            for target, path in paths.items():
                write_onnx(loaded, replace(options, target=target), traced, path)
        return "made"

    def _paths(
        self, model: str, variant: str, weights: str, options: ExportOptions, local: bool
    ) -> dict[TargetName, Path]:
        key = repr((model, variant, weights, options.shape, options.reparam, local)).encode()
        stem = hashlib.sha256(key).hexdigest()[:16]
        return {target: self.folder / f"{stem}_{target}.onnx" for target in TARGETS}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """See `Exports`; one folder for all workers."""
    root = tmp_path_factory.getbasetemp()
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    return Exports((root.parent if parallel else root) / "artifacts")


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of photos that scikit-image ships."""
    return Path(str(needs.SKIMAGE.load().__file__)).parent / "data"


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """command(*arguments, cwd=...) runs deblur-export in a process of its own."""

    def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deblur_export", *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            encoding="locale",
            check=False,
        )

    return run
