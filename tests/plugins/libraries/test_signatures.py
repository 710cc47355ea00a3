"""The C headers, the specifications of the ops and the calls from Python say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deblur_export import plugins
from deblur_export.plugins.libraries.signatures import c_types
from deblur_export.plugins.ops import OPS
from deblur_export.plugins.parameters import NativeFunction
from deblur_export.plugins.shapes import evaluate
from deblur_export.plugins.spec import OpSpec

CSRC = Path(plugins.__file__).resolve().parent / "csrc"
# Name -> (type, argument) of each argument, such as ("const float*", "offset").
Header = dict[str, list[tuple[str, str]]]
DECLARATION = re.compile(r"DEBLUR(?:_CUDA)?_API (?:const )?\w+\*? (\w+)\(([^)]*)\);")
CTYPES = {"int32_t": "c_int", "int64_t": "c_long"}
# Functions that no op names: version and texts, and the plan that layers of OpenVINO may share.
OTHERS = {
    "deblur_version",
    "deblur_instruction_set",
    "deblur_instruction_sets",
    "deblur_error_text",
    "deblur_motion_plan_bytes",
    "deblur_motion_plan",
    "deblur_cuda_version",
    "deblur_cuda_error_text",
}
# Tensors of the C functions that are none of the op: the index of DeformConv2d is NULL, the plan is
# scratch memory.
EXTRA = {"index": "const int64_t*", "plan": "const void*"}


def declarations(header: str) -> Header:
    """The functions of a header, but those with callbacks among their arguments."""
    text = re.sub(r"//[^\n]*", "", (CSRC / header).read_text(encoding="utf-8"))
    found: Header = {}
    for name, arguments in DECLARATION.findall(text):
        pairs = re.findall(r"((?:const )?\w+\*?) (\w+)\s*(?:,|$)", " ".join(arguments.split()))
        found[name] = pairs
    return found


HEADERS = {"cpu": declarations("deblur_cpu.h"), "cuda": declarations("deblur_cuda.h")}


def functions() -> Iterator[tuple[str, OpSpec, NativeFunction]]:
    for spec in OPS.values():
        for device, function in (("cpu", spec.cpu), ("cuda", spec.cuda)):
            if function is not None:
                yield device, spec, function


ALL = list(functions())
IDS = [f"{device}-{spec.name}" for device, spec, _ in ALL]


def test_headers_declare_what_the_specifications_name_and_no_more() -> None:
    declared = {name for header in HEADERS.values() for name in header}
    named = {function.name for _, _, function in ALL}
    named |= {f"{function.name}_workspace" for *_, function in ALL if function.workspace}
    assert declared - OTHERS == named
    assert declared >= OTHERS


@pytest.mark.parametrize(("device", "spec", "function"), ALL, ids=IDS)
def test_arguments_are_those_of_the_header(
    device: str, spec: OpSpec, function: NativeFunction
) -> None:
    for name, arguments in (
        (function.name, function.arguments),
        (f"{function.name}_workspace", function.workspace),
    ):
        if not arguments:
            continue
        header = HEADERS[device][name]
        assert [argument for _, argument in header] == arguments.split()
        kinds = [CTYPES.get(kind, "c_void_p") for kind, _ in header]
        assert [kind.__name__ for kind in c_types(spec, function, arguments)] == kinds


@pytest.mark.parametrize(("device", "spec", "function"), ALL, ids=IDS)
def test_tensors_have_the_types_of_the_specification(
    device: str, spec: OpSpec, function: NativeFunction
) -> None:
    """`void` where a tensor may be of lower precision, `const` where it is read only."""
    flexible = any(tensor.channels_last for tensor in spec.inputs.values())
    output = spec.output[0]
    header = {argument: kind for kind, argument in HEADERS[device][function.name]}
    missing = set(spec.inputs) - set(header)
    assert missing <= {name for name, tensor in spec.inputs.items() if tensor.optional}
    for name, tensor in {**spec.inputs, **spec.outputs}.items():
        if name in missing:
            continue
        low = tensor.type == "T"
        if device == "cpu":
            low = flexible if name == output else tensor.channels_last
        whole = "int64_t" if tensor.type == "tensor(int64)" else "float"
        const = "" if name == output else "const "
        assert header[name] == f"{const}{'void' if low else whole}*", name


@pytest.mark.parametrize(("device", "spec", "function"), ALL, ids=IDS)
def test_every_argument_has_a_meaning(device: str, spec: OpSpec, function: NativeFunction) -> None:
    values = dict.fromkeys("NCHWDSLOP", 6) | {"ratio": 2}
    known = {*spec.inputs, *spec.outputs, *spec.attributes, *spec.constants, *EXTRA}
    known |= {"layout", "threads"} if device == "cpu" else {"type", "stream"}
    known |= {"workspace", "workspace_bytes"} if function.workspace else set()
    assert function.arguments.split()[-1] == {"cpu": "threads", "cuda": "stream"}[device]
    for argument in (function.arguments + " " + function.workspace).split():
        expression = function.size(argument)
        if expression is None:
            assert argument in known, argument
        else:
            assert evaluate(expression, values) > 0
    for argument, kind in EXTRA.items():
        if argument in function.arguments.split() and argument not in spec.inputs | spec.outputs:
            header = {name: found for found, name in HEADERS[device][function.name]}
            assert header[argument] == kind
