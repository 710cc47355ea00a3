"""A pool for all training tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.training.small_pool import write_pool


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ and val/; see `small_pool`."""
    return write_pool(tmp_path_factory.mktemp("pool"))
