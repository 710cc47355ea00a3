"""The version is the same wherever it is written."""

from __future__ import annotations

import re

import deblur_export
from tests.packaging.conftest import ROOT


def written(file: str, pattern: str) -> str:
    (version,) = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    return str(version)


def test_one_version() -> None:
    version = written("pyproject.toml", r'^version = "(.*)"$')
    assert deblur_export.__version__ == version
    assert written("CITATION.cff", r"^version: (.*)$") == version
    assert f"version {version} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
