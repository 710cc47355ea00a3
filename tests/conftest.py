"""Shared fixtures: exported artifacts are made once a session, photos come from scikit-image."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deblur_export.export.checkpoint import load_model
from deblur_export.export.manifest import Artifact, read_artifact
from deblur_export.export.pipeline import ExportOptions, trace_model, write_onnx
from deblur_export.plugins.spec import TARGETS

# Small tensors gain nothing from a second thread, and next to other busy processes torch's waiting
# threads slow the suite down tenfold.
torch.set_num_threads(1)

Exported = Callable[..., Artifact]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """exported(model, variant, weights, options, local) -> artifact.

    Tracing takes most of an export and serves all targets, so all of them are written at once, by
    whichever pytest-xdist worker needs one first.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "artifacts"
    folder.mkdir(exist_ok=True)

    def make(
        model: str = "m2aenet",
        variant: str = "tiny",
        weights: str = "random:0",
        options: ExportOptions | None = None,
        local: bool = False,
    ) -> Artifact:
        options = options or ExportOptions()
        key = repr((model, variant, weights, options.shape, options.reparam, local)).encode()
        stem = folder / hashlib.sha256(key).hexdigest()[:16]
        paths = {target: Path(f"{stem}_{target}.onnx") for target in TARGETS}
        with Path(f"{stem}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not paths[options.target].exists():
                loaded = load_model(model, variant, weights, local)
                traced = trace_model(loaded, options)
                for target, path in paths.items():
                    write_onnx(loaded, replace(options, target=target), traced, path)
        return read_artifact(paths[options.target])

    return make


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of photos that scikit-image ships."""
    skimage = pytest.importorskip("skimage.data", reason="photos come with scikit-image")
    return Path(skimage.__file__).parent


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """command(*arguments, cwd=...) runs deblur-export in a process of its own."""

    def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deblur_export", *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
