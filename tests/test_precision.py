"""The records of the precisions: what they say is so, and they are said nowhere else."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import get_args

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from click.testing import CliRunner

from deblur_export.cli import cli
from deblur_export.precision import (
    GRAPH_PRECISIONS,
    LOW,
    PRECISIONS,
    EnginePrecision,
    PrecisionName,
    Tolerances,
)

ROOT = Path(__file__).parent.parent


def test_types_name_the_records() -> None:
    assert get_args(PrecisionName) == tuple(PRECISIONS)
    assert ("fp32", *LOW) == GRAPH_PRECISIONS
    around_int8 = tuple(f"int8+{name}" for name in LOW)
    assert get_args(EnginePrecision) == (*PRECISIONS, *around_int8)


@pytest.mark.parametrize("name", GRAPH_PRECISIONS)
def test_floating_point_is_what_the_libraries_say(name: str) -> None:
    record = PRECISIONS[name]
    dtype = ir.DataType[record.onnx].numpy()
    facts = ml_dtypes.finfo(dtype)
    assert dtype.name == record.dtype
    assert getattr(torch, record.dtype).itemsize == dtype.itemsize
    assert record.largest == float(facts.max)
    assert record.digits == facts.nmant + 1
    assert 2.0**record.min_power == float(facts.smallest_normal)
    assert 2.0**record.min_subnormal_power == float(facts.smallest_subnormal)


def test_int8_is_what_numpy_says() -> None:
    record = PRECISIONS["int8"]
    dtype = ir.DataType[record.onnx].numpy()
    assert (dtype, dtype.name) == (np.dtype(np.int8), record.dtype)
    assert record.largest == np.iinfo(dtype).max == 2**record.digits - 1


def test_float16_alone_is_narrow() -> None:
    assert [name for name in LOW if PRECISIONS[name].narrow] == ["fp16"]


@pytest.mark.parametrize("name", LOW)
def test_convolutions_take_it_from_its_opset_on(name: str) -> None:
    record = PRECISIONS[name]
    word = f"tensor({record.onnx.lower()})"

    def allowed(opset: int) -> bool:
        schema = onnx.defs.get_schema("Conv", opset, "")
        return word in schema.type_constraints[0].allowed_type_strs

    assert allowed(record.opset)
    assert record.opset == 1 or not allowed(record.opset - 1)


# Each number is measured, or lies above what was measured by the factor that the comment names.
# Worst of all tiny networks with random weights: fp16 67 dB, bf16 49 dB; of layers 1e-2 and 1e-1;
# of choices 2 % and 6 %, 0.02 and 0.13 from the border (AIBNet). Limits leave a factor of two
# (6 dB) or three, not more: ten times as much would pass a graph with a wrong layer.
@pytest.mark.parametrize(
    ("name", "tolerances"),
    [
        ("fp32", Tolerances(1e-4, 1e-4, psnr=0.0, flips=1e-3, flip_distance=0.0)),
        ("fp16", Tolerances(1e-2, 3e-2, psnr=60.0, flips=3e-2, flip_distance=0.02)),
        ("bf16", Tolerances(8e-2, 2e-1, psnr=42.0, flips=2e-1, flip_distance=0.2)),
        # Below the 33 dB of a good network's own error, so that only a broken graph fails it: the
        # budget in dB that `calibrate` held ensures the quality.
        ("int8", Tolerances(2.5e-1, 5e-1, psnr=30.0, flips=2e-1, flip_distance=0.5)),
    ],
)
def test_tolerances_are_the_published_ones(name: str, tolerances: Tolerances) -> None:
    assert PRECISIONS[name].tolerances == tolerances


def test_fewer_digits_allow_more() -> None:
    ordered = sorted(PRECISIONS.values(), key=lambda record: -record.digits)
    for finer, coarser in itertools.pairwise(ordered):
        for field in dataclasses.fields(Tolerances):
            tight, loose = (getattr(r.tolerances, field.name) for r in (finer, coarser))
            if field.name == "psnr":
                tight, loose = loose, tight or math.inf
            assert tight <= loose, field.name


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "net.onnx", "photo.png"),
        ("verify", "net.onnx"),
        ("bench", "net.onnx"),
        ("onnx", "--model", "nafnet"),
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize(("former", "today"), [("f32", "fp32"), ("f16", "fp16")])
def test_former_spellings_are_refused(arguments: tuple[str, ...], former: str, today: str) -> None:
    result = CliRunner().invoke(cli, [*arguments, "--precision", former])
    assert result.exit_code == 2
    assert f"--precision {former} is spelled {today}" in result.output


# What has to say something of its own about a precision; a new one touches these, its tests and
# the documentation, and nothing else.
SPEAKING = {
    "src/deblur_export/precision.py",  # the record
    "src/deblur_export/commands/trt.py",  # a flag of its own
    "export/runtimes/openvino.py",  # OpenVINO's names for it, and whether it computes it
    "src/deblur_export/target.py",  # what a builder refuses in it
}
# Words that are no precision of ours: instruction sets, OpenVINO's own types, training.
OTHERS = {
    "export/timing/machine.py",
    "plugins/libraries/openvino.py",
    "models/training/run.py",
    "models/training/trainer.py",
    "src/deblur_export/commands/train.py",
}


def speaks(file: Path) -> bool:
    """Whether the code says "bf16", as a string, a keyword or a name; docstrings do not count."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    words = [
        getattr(node, field, None)
        for node in ast.walk(tree)
        if id(node) not in prose
        for field in ("value", "id", "arg", "attr")
    ]
    return any(isinstance(word, str) and re.search(r"\bbf16\b", word) for word in words)


def test_a_precision_is_spelled_in_few_files() -> None:
    tops = [ROOT / name for name in ("plugins", "models", "export", "calibration")]
    source = ROOT / "src" / "deblur_export"
    files = [*source.glob("*.py"), *source.glob("commands/*.py")]
    files += [file for top in tops for file in top.rglob("*.py")]
    speaking = {file.relative_to(ROOT).as_posix() for file in files if speaks(file)}
    assert speaking == SPEAKING | OTHERS
    assert len(SPEAKING) <= 8 - 3, "a new precision touches its tests and two pages as well"
