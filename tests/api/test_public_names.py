"""The public names: complete, light to import, and with the options of their verbs."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import click
import pytest

import deblur_export
from deblur_export.cli import cli
from deblur_export.commands.network import FIELDS
from deblur_export.models.foreign.examine import Given

# What a verb's parameter is called in Python.
RENAMED = {"json_path": "json", "html_path": "html", "max_drop": "max_psnr_drop"}
# Of a network; `load_model` has them.
NETWORK = {
    *("model", "variant", "weights", "local", "ema", "arguments"),
    *(FIELDS.get(name, name) for name in Given.__dataclass_fields__),
}
# Flags of `onnx` and `trt` that are values in Python, and what only a terminal needs.
SPELLED_OUT = {
    "onnx": {"dynamic", "no_reparam", *NETWORK},
    "trt": {"fp16", "bf16", "int8", "file", *NETWORK},
    "calibrate": {"table", "plot"},
    "run": {"photos", "output", "suffix", "mask", "overwrite", "quality"},
    "verify": set(),
    "adopt": set(),
}
ONLY_PYTHON = {
    "onnx": {"model", "reparam"},
    "trt": {"source", "precision", "listener"},
    "calibrate": {"whole"},
    "run": set(),
    "verify": set(),
    "adopt": set(),
}
ALIASES = {"trt": {"compute_capability": "compute_capabilities"}}
FUNCTIONS = {
    "adopt": "adopt",
    "onnx": "export_onnx",
    "verify": "verify",
    "calibrate": "calibrate",
    "trt": "build_engine",
    "run": "open_session",
}


def test_the_doctest_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = doctest.testmod(deblur_export)
    assert outcome.failed == 0 and outcome.attempted >= 6
    assert (tmp_path / "net.onnx").is_file()


@pytest.mark.parametrize("verb", FUNCTIONS)
def test_a_function_has_the_options_of_its_verb(verb: str) -> None:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    options = {str(parameter.name) for parameter in command.params} - SPELLED_OUT[verb]
    renamed = RENAMED | ALIASES.get(verb, {})
    expected = {renamed.get(name, name) for name in options}
    signature = inspect.signature(getattr(deblur_export, FUNCTIONS[verb]))
    assert set(signature.parameters) - ONLY_PYTHON[verb] - {"progress"} == expected


def test_no_name_becomes_a_module() -> None:
    """Importing a sub-package sets an attribute of the package, over a public name if it has the
    same."""
    code = """
import importlib, pkgutil, deblur_export
for module in pkgutil.iter_modules(deblur_export.__path__):
    if module.name != "__main__":
        importlib.import_module(f"deblur_export.{module.name}")
for name in deblur_export.__all__:
    for _ in range(2):
        assert callable(getattr(deblur_export, name)), name
    assert name in dir(deblur_export), name
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'restore'"):
        deblur_export.restore  # noqa: B018
