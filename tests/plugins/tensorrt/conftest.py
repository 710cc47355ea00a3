"""What the tests of the TensorRT plugins share: the libraries, compiled once a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.tensorrt.harness import build_on_host, compile_harness, skip_without_headers


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without_headers()
    return compile_harness(tmp_path_factory.mktemp("harness") / "harness.so")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugins over the CUDA kernels on the processor."""
    return build_on_host(tmp_path_factory.mktemp("plugins"))
