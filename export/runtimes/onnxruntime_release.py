"""Which releases of ONNX Runtime run a file on the CPU.

The versions were found by trying releases of 1.15 to 1.32; tests/export/runtimes/
test_old_runtimes.py tries the oldest ones again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime

from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes.probe import version_tuple
from deblur_export.onnx_reading import first_line


@dataclass(frozen=True)
class Release:
    """The oldest release, such as "1.25", and what of a file it was the first to run; empty if no
    older one was tried."""

    version: str
    reason: str = ""


OLDEST = Release("1.15")
OPSETS = {22: Release("1.21", "opset 22")}
OPERATORS = {"DeformConv": Release("1.25", "DeformConv on the CPU")}
HALF_NORM = Release("1.17", "LayerNormalization in float16")


def oldest_release(model: onnx.ModelProto) -> Release:
    """The oldest release that runs a model in float32, float16 or int8 on the CPU."""
    needed = [OLDEST]
    needed += [OPSETS[entry.version] for entry in model.opset_import if entry.version in OPSETS]
    used = {node.op_type for body in (model.graph, *model.functions) for node in body.node}
    needed += [OPERATORS[name] for name in sorted(used) if name in OPERATORS]
    if _normalizes_in_half(model):
        needed.append(HALF_NORM)
    return max(needed, key=lambda release: version_tuple(release.version))


def cannot_load(path: Path, model: onnx.ModelProto, error: Exception) -> DeblurExportError:
    """The error of a model, made from a file, that ONNX Runtime refused; it says which release is
    needed where the installed one is older."""
    needed, here = oldest_release(model), onnxruntime.__version__
    if version_tuple(here) < version_tuple(needed.version):
        return DeblurExportError(
            f"{path}: {needed.reason} needs ONNX Runtime {needed.version} or newer, and this "
            f"is {here}; pip install -U onnxruntime, or export with --target portable"
        )
    return DeblurExportError(f"{path}: ONNX Runtime cannot load it: {first_line(error)}")


def _normalizes_in_half(model: onnx.ModelProto) -> bool:
    half = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    return any(n.op_type == "LayerNormalization" and n.input[1] in half for n in model.graph.node)
