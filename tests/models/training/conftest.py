"""A dataset for all training tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.training.small_dataset import write_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ and val/; see `small_dataset`."""
    return write_dataset(tmp_path_factory.mktemp("dataset"))
