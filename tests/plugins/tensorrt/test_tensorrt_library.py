"""Finding, refusing, building and loading the library of TensorRT plugins."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from deblur_export.plugins.compile import cpu as cpu_compiler
from deblur_export.plugins.compile import tensorrt as tensorrt_compiler
from deblur_export.plugins.compile.cpu import BuildError
from deblur_export.plugins.libraries import tensorrt as tensorrt_library
from deblur_export.plugins.ops import OPS
from deblur_export.plugins.shapes import evaluate, evaluate_shape
from tests import needs
from tests.plugins.cases import CASES
from tests.plugins.harness import model_of
from tests.plugins.tensorrt.harness import (
    CSRC,
    HERE,
    node_name,
    skip_without_headers,
)

WITHOUT = {"LocalMean", "FFT2", "IRFFT2", "RFFT2"}  # TensorRT computes their bodies
NAMES = sorted(set(OPS) - WITHOUT)


def test_versions_agree() -> None:
    header = (CSRC / "tensorrt" / "plugin.h").read_text(encoding="utf-8")
    (version,) = re.findall(r"#define DEBLUR_PLUGINS_VERSION (\d+)", header)
    assert int(version) == tensorrt_library.VERSION


ROW = re.compile(r"^Op (\w+)\(.*?\{(.*?)^\}", re.MULTILINE | re.DOTALL)
TENSOR = re.compile(r'\{"(\w+)", ([TFI]), "([^"]+)"(, true)?\}')
ATTRIBUTE = re.compile(
    r"""\{"(\w+)",\ '(\w)',\ \{([\d,\ ]*)\}  # name, letter, values
    (?:,\ (true|false)(?:,\ (\d+))?)?\}          # optional, what the letter adds to the value""",
    re.VERBOSE,
)
# What the letters of the table stand for; an attribute's letter stands for its value.
LETTERS = {"n": 2, "c": 6, "h": 12, "w": 20, "l": 7, "d": 5, "s": 3, "o": 4, "p": 11}
TYPES = {"T": "T", "F": "tensor(float)", "I": "tensor(int64)"}


def rows_of_the_table() -> dict[str, str]:
    """The text of each op's row, by the names that it has; this needs no headers."""
    table = (CSRC / "tensorrt" / "ops.cpp").read_text(encoding="utf-8")
    rows = {}
    for function, row in ROW.findall(table):
        own = re.findall(r'return \{"(\w+)"', row)
        rows.update(dict.fromkeys(own or re.findall(rf'{function}\("(\w+)"', table), row))
    return rows


def size(axis: str, values: dict[str, int]) -> int:
    """One axis of a shape of the table: letters and numbers joined by * and /, left to right."""
    result, product = 1, True
    for token in re.findall(r"[a-z]|\d+|[*/]", axis):
        if token in "*/":
            product = token == "*"
            continue
        factor = values[token] if token.isalpha() else int(token)
        result = result * factor if product else result // factor
    return result


def test_the_table_has_all_ops() -> None:
    assert sorted(rows_of_the_table()) == NAMES
    assert {spec.name for spec in OPS.values() if spec.tensorrt} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_says_what_the_specifications_say(name: str) -> None:
    """Types, optional parameters, values of attributes, and every shape for some sizes."""
    spec, row = OPS[name], rows_of_the_table()[name]
    tensors = TENSOR.findall(row)
    declared = {**spec.inputs, **spec.outputs}
    assert [n for n, *_ in tensors] == list(declared)
    assert [TYPES[t] for _, t, *_ in tensors] == [tensor.type for tensor in declared.values()]
    assert [bool(o) for *_, o in tensors] == [tensor.optional for tensor in declared.values()]

    attributes = ATTRIBUTE.findall(row)
    assert [n for n, *_ in attributes] == list(spec.attributes)
    symbols = {letter.upper(): number for letter, number in LETTERS.items()}
    choices: list[dict[str, int]] = [{**spec.constants}]
    for attribute, (_, _, values, optional, _) in zip(
        spec.attributes.values(), attributes, strict=True
    ):
        allowed = tuple(int(value) for value in re.findall(r"\d+", values))
        assert allowed == attribute.values
        assert (optional == "true") == attribute.optional
    for (own, *_), attribute in zip(attributes, spec.attributes.values(), strict=True):
        fixed = [evaluate(attribute.equals, symbols)] if attribute.equals else [2, 4]
        choices = [
            choice | {own: value} for choice in choices for value in attribute.values or fixed
        ]
    for choice in choices:
        letters = LETTERS | ({"k": spec.constants["kernel"]} if spec.constants else {})
        letters |= {letter: choice[n] + int(more or 0) for n, letter, *_, more in attributes}
        for (_, _, shape, _), tensor in zip(tensors, declared.values(), strict=True):
            sizes = tuple(size(axis, letters) for axis in shape.split())
            assert sizes == evaluate_shape(tensor.shape, symbols | choice), shape


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of one node for each op, as exported files have them, without bodies."""
    folder = tmp_path_factory.mktemp("nodes")
    for case in CASES:
        inputs = case.make(torch.float32)
        model = model_of(case, "ort", inputs)
        del model.functions[:]
        onnx.save(model, folder / f"{node_name(case.op, inputs)}.onnx")
    return folder


def answers(module: str, library: Path, nodes: Path, *order: str) -> dict[str, Any]:
    needs.Need(module, f"pip install {module}", module).require()
    command = [sys.executable, str(HERE / "registry.py"), module, str(library), str(nodes)]
    command += order
    done = subprocess.run(command, capture_output=True, encoding="locale", check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("order", [(), ("merely-loaded",)], ids=["asked", "merely-loaded"])
@pytest.mark.parametrize("module", ["tensorrt_lean", "tensorrt"])
def test_registry_of_tensorrt(
    module: str, order: tuple[str, ...], library: Path, nodes: Path
) -> None:
    found = answers(module, library, nodes, *order)
    major = importlib.import_module(module).__version__.split(".")[0]
    made_for = tensorrt_compiler.release(tensorrt_compiler.tensorrt_headers())[0]
    # What merely loads the library finds the plugins as well, in the release it is made for.
    assert found["registered_itself"] == (NAMES if order and int(major) == made_for else [])
    assert found["loaded"]
    assert found["creators"] == NAMES
    assert found["created"] == sorted(file.stem for file in nodes.glob("*.onnx"))
    assert found["left"] == []


@pytest.mark.trt
def test_registry_and_parser_of_tensorrt_for_rtx(library: Path, nodes: Path) -> None:
    """Its parser is the one of TensorRT 11, up to where a plugin would become a layer."""
    found = answers("tensorrt_rtx", library, nodes, "merely-loaded")
    assert found["registered_itself"] == []
    assert found["creators"] == NAMES
    for op, text in found["parsed"].items():
        assert f"Searching for plugin: {op}, plugin_version: 1, plugin_namespace: deblur" in text
        assert f"Successfully created plugin: {op}" in text, text
        assert "not found in plugin node" not in text.replace("Attribute gate not found", "")


def test_without_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path))
    with pytest.raises(BuildError, match="no headers of TensorRT; set TENSORRT_ROOT"):
        tensorrt_compiler.build(CSRC, tmp_path / "lib.so", tmp_path / "kernels.so")
    (tmp_path / "NvInferRuntime.h").touch()
    version = tmp_path / "NvInferVersion.h"
    version.write_text(
        "#define NV_TENSORRT_MAJOR 10 //\n#define NV_TENSORRT_MINOR 2 //\n", encoding="utf-8"
    )
    with pytest.raises(BuildError, match=r"is of TensorRT 10\.2; 10\.3 is the least"):
        tensorrt_compiler.tensorrt_headers()
    version.write_text(
        "#define TRT_MAJOR_ENTERPRISE 11\n#define TRT_MINOR_ENTERPRISE 0\n", encoding="utf-8"
    )
    assert tensorrt_compiler.tensorrt_headers() == tmp_path
    version.write_text("", encoding="utf-8")
    with pytest.raises(BuildError, match="does not say of which release"):
        tensorrt_compiler.tensorrt_headers()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(BuildError, match="no headers of CUDA"):
        tensorrt_compiler.cuda_headers()


def test_missing_and_wrong_kernels(tmp_path: Path) -> None:
    skip_without_headers()
    target, kernels = tmp_path / "lib.so", tmp_path / "kernels.so"
    with pytest.raises(BuildError, match=r"no .*kernels\.so, which is built first"):
        tensorrt_compiler.build(CSRC, target, kernels)
    nothing = tmp_path / "nothing.cpp"
    nothing.touch()
    cpu_compiler.run([*cpu_compiler.compiler(), "-shared", str(nothing), "-o", str(kernels)])
    with pytest.raises(BuildError, match="deblur_cuda_") as caught:
        tensorrt_compiler.build(CSRC, target, kernels)
    assert "\n" not in str(caught.value)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no {path}; `deblur-export plugins build` makes it"),
        ("text", "{path} is no library of these ops; `deblur-export plugins build`"),
        ("deblur plugins 0 for TensorRT 11.0", "{path} has version 0 of the plugins, not 1;"),
        ("deblur plugins 1 for TensorRT 10.3", "{path} is for TensorRT 10, not 11;"),
        ("deblur plugins 1 for TensorRT 11.1", ""),
    ],
)
def test_finding(
    content: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / tensorrt_compiler.LIBRARY
    if content is not None:
        path.write_text(f"\0{content}\0", encoding="utf-8")
    monkeypatch.setenv("DEBLUR_PLUGINS_LIBRARY", str(path))
    found = tensorrt_library.find(11)
    assert (found.path is None) == bool(reason)
    assert found.reason.startswith(reason.format(path=path))
    monkeypatch.setenv("DEBLUR_PLUGINS_LIBRARY", "none")
    assert tensorrt_library.find(11).reason == "switched off by DEBLUR_PLUGINS_LIBRARY=none"


def test_the_library_says_for_what_it_is(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBLUR_PLUGINS_LIBRARY", str(library))
    major = tensorrt_compiler.release(tensorrt_compiler.tensorrt_headers())[0]
    assert tensorrt_library.find(major).path == library
    assert tensorrt_library.find().path == library
    assert "is for TensorRT" in tensorrt_library.find(major + 1).reason
