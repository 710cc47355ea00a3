"""What people do to an exported file with other tools; each edits a file in place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import onnxruntime

from tests import needs

POLYGRAPHY = "import sys; from polygraphy.tools import main; sys.exit(main())"


def surgeon(verb: str, *options: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        command = [sys.executable, "-c", POLYGRAPHY, "surgeon", verb, str(path), "-o", str(path)]
        subprocess.run([*command, *options], check=True, capture_output=True)

    return edit


def optimized(level: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        options, target = onnxruntime.SessionOptions(), path.with_suffix(".new")
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        target.replace(path)

    return edit


def onnxsim(path: Path) -> None:
    simplified, passed = needs.ONNXSIM.load().simplify(onnx.load(path))
    assert passed
    onnx.save(simplified, path)


def onnxslim(path: Path) -> None:
    onnx.save(needs.ONNXSLIM.load().slim(onnx.load(path)), path)


def inlined(path: Path) -> None:
    onnx.save(onnx.inliner.inline_local_functions(onnx.load(path)), path)


def opset_21(path: Path) -> None:
    onnx.save(onnx.version_converter.convert_version(onnx.load(path), 21), path)


def inlined_then_opset_21(path: Path) -> None:
    inlined(path)
    opset_21(path)


def external_data(path: Path) -> None:
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)


EDITS: Mapping[str, Callable[[Path], None]] = {
    "sanitize": surgeon("sanitize", "--fold-constants"),
    "extract": surgeon("extract", "--inputs", "image:auto:auto", "--outputs", "restored:auto"),
    "onnxsim": onnxsim,
    "onnxslim": onnxslim,
    "optimized": optimized("ORT_ENABLE_EXTENDED"),
    "optimized for this processor": optimized("ORT_ENABLE_ALL"),
    "inlined": inlined,
    "opset 21": opset_21,
    "inlined, opset 21": inlined_then_opset_21,
    "external data": external_data,
}
