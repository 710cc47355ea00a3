"""Shared fixtures: exported artifacts are made once a session, photos come from scikit-image."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deblur_export.export.checkpoint import load_model
from deblur_export.export.manifest import Artifact
from deblur_export.export.pipeline import ExportOptions, export_onnx

# Small tensors gain nothing from a second thread, and next to other busy processes torch's waiting
# threads slow the suite down tenfold.
torch.set_num_threads(1)

Exported = Callable[..., Artifact]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """exported(model, variant, weights, options) -> artifact, made once for equal arguments."""
    made: dict[object, Artifact] = {}
    folder = tmp_path_factory.mktemp("artifacts")

    def make(
        model: str = "m2aenet",
        variant: str = "tiny",
        weights: str = "random:0",
        options: ExportOptions | None = None,
    ) -> Artifact:
        options = options or ExportOptions()
        key = (model, variant, weights, options)
        if key not in made:
            path = folder / f"{len(made)}.onnx"
            made[key] = export_onnx(load_model(model, variant, weights), options, path)
        return made[key]

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
