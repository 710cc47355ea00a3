"""What is installed, what works here, and what to install for the rest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata

from rich.table import Column, Table
from rich.text import Text

PROBE_SECONDS = 120


@dataclass(frozen=True)
class Finding:
    """One line of the table; `works` is what a trial on this machine showed."""

    name: str
    version: str
    works: bool
    note: str


# Each probe runs in a process of its own: some of these libraries abort without a GPU.
CORE = {
    "torch": "import torch; torch.nn.functional.conv2d(torch.ones(1,1,3,3), torch.ones(1,1,3,3))",
    "onnx": "import onnx; onnx.checker",
    "onnxscript": "import onnxscript",
    "onnxruntime": """
import onnx, onnxruntime
text = '<ir_version: 9, opset_import: ["": 18]> g (float[2] x) => (float[2] y) { y = Abs(x) }'
model = onnx.parser.parse_model(text).SerializeToString()
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
import numpy; session.run(None, {"x": numpy.ones(2, numpy.float32)})
""",
    "polygraphy": "import polygraphy.backend.onnxrt, polygraphy.comparator",
    "onnx-graphsurgeon": "import onnx_graphsurgeon",
    "opencv-python-headless": "import cv2; cv2.imencode",
    "pillow": "from PIL import Image; Image.new('RGB', (2, 2)).tobytes()",
}

# Opened as `trt` opens them, so that the note is the reason that `trt` would give.
BACKEND_PROBE = """
import sys
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines.{} import open_backend
from deblur_export.export.engines.options import BuildOptions
try:
    trt = open_backend(BuildOptions()).trt
except DeblurExportError as error:
    sys.exit(str(error))
assert trt.Builder(trt.Logger(trt.Logger.ERROR)), "no builder could be made"
"""

OPTIONAL = {
    "tensorrt": (BACKEND_PROBE.format("tensorrt_backend"), "deblur-export[trt]"),
    "tensorrt-rtx": (BACKEND_PROBE.format("rtx_backend"), "deblur-export[rtx]"),
    "openvino": ("import openvino; openvino.Core().available_devices", "deblur-export[openvino]"),
}

RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def findings() -> list[Finding]:
    """Try every component."""
    found = [_probe(name, code, "deblur-export") for name, code in CORE.items()]
    found += [_probe(name, code, extra) for name, (code, extra) in OPTIONAL.items()]
    found += [_native(), _openvino_ops(), _cuda_kernels(), _tensorrt_plugins()]
    return [*found, _cuda(), _tool("nvcc"), _tool("trtexec")]


def _probe(package: str, code: str, install: str) -> Finding:
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return Finding(package, "-", False, f"not installed; pip install '{install}'")
    try:
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            encoding="locale",
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(package, version, False, f"did not answer within {PROBE_SECONDS} s")
    if result.returncode == 0:
        return Finding(package, version, True, "")
    lines = (result.stderr or result.stdout).strip().splitlines() or ["it crashed"]
    return Finding(package, version, False, f"installed, but: {lines[-1]}")


NATIVE_PROBE = """
import torch
from deblur_export.plugins.libraries import cpu
from deblur_export.plugins.ops.selective_scan import selective_scan
assert cpu.available(), "not used"
x, one = torch.ones(1, 1, 1), torch.ones(1, 1)
assert selective_scan(x, x, -one, x, x, one[0], delta_softplus=0).item() == 2
print(cpu.instruction_set(), "of", ", ".join(cpu.instruction_sets()))
"""


def _native() -> Finding:
    """The CPU kernels of the custom ops: one call, in a process of its own."""
    from deblur_export.plugins.libraries.cpu import FILE, VERSION

    name = "native CPU kernels"
    path, reason = FILE.find()
    if path is None:
        return Finding(name, "-", False, reason)
    result = subprocess.run(
        [sys.executable, "-c", NATIVE_PROBE],
        capture_output=True,
        encoding="locale",
        timeout=PROBE_SECONDS,
        check=False,
    )
    if result.returncode == 0:
        return Finding(name, str(VERSION), True, result.stdout.strip())
    lines = result.stderr.strip().splitlines() or ["it crashed"]
    return Finding(name, "-", False, next((i for i in lines if "native" in i), lines[-1]))


OPENVINO_PROBE = """
import numpy, openvino, sys
from onnx.parser import parse_model
core = openvino.Core()
core.add_extension(sys.argv[1])
graph = "g (float[1,1,1,1] x) => (float[1,1,1,1] y) { y = deblur.LocalMean3(x) }"
network = parse_model('<ir_version: 9, opset_import: ["": 18, "deblur": 1]> ' + graph)
model = core.compile_model(core.read_model(network.SerializeToString()), "CPU")
assert model(numpy.ones((1, 1, 1, 1), numpy.float32))[0].item() == 1
"""


def _openvino_ops() -> Finding:
    """The custom ops in OpenVINO: one node, in a process of its own."""
    from deblur_export.plugins.libraries.openvino import find

    name = "native ops for OpenVINO"
    try:
        release = metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return Finding(name, "-", False, "OpenVINO is not installed")
    path, reason = find(release)
    if path is None:
        return Finding(name, "-", False, reason)
    result = subprocess.run(
        [sys.executable, "-c", OPENVINO_PROBE, str(path)],
        capture_output=True,
        encoding="locale",
        timeout=PROBE_SECONDS,
        check=False,
    )
    if result.returncode == 0:
        return Finding(name, release, True, "")
    lines = result.stderr.strip().splitlines() or ["it crashed"]
    return Finding(name, "-", False, lines[-1])


def _cuda_kernels() -> Finding:
    """Whether the library can be loaded, and there is a GPU for it."""
    import torch

    from deblur_export.plugins.libraries import cuda

    name = "CUDA kernels"
    path, reason = cuda.FILE.find()
    if path is None:
        return Finding(name, "-", False, reason)
    if not cuda.available():
        return Finding(name, "-", False, f"{path.name} cannot be used; plugins build makes it anew")
    works = torch.cuda.is_available()
    return Finding(name, str(cuda.VERSION), works, "" if works else "built; they need a GPU")


def _tensorrt_plugins() -> Finding:
    """Whether there is a library of this version."""
    from deblur_export.plugins.libraries.tensorrt import VERSION, find

    path, reason = find()
    return Finding("TensorRT plugins", str(VERSION) if path else "-", path is not None, reason)


def _cuda() -> Finding:
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        return Finding("CUDA device", str(torch.version.cuda), True, name)
    return Finding("CUDA device", "-", False, "none; everything here runs on the CPU")


def _tool(name: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, "-", path is not None, path or "not on PATH")


def doctor_table() -> Table:
    """Components, then what this package can do with them."""
    table = Table("component", "version", "works", Column("note", overflow="fold"))
    by_name = {finding.name: finding for finding in findings()}
    for finding in by_name.values():
        table.add_row(finding.name, finding.version, _mark(finding.works), finding.note)
    table.add_section()
    core = all(by_name[name].works for name in CORE)
    runtimes = ", ".join(title for name, title in RUNTIMES.items() if by_name[name].works)
    for verb in ("onnx", "verify", "run"):
        note = "opset 18 and 22" if verb == "onnx" else runtimes
        table.add_row(f"deblur-export {verb}", "", _mark(core), note)
    builders = [name for name in ("tensorrt", "tensorrt-rtx") if by_name[name].works]
    note = ", ".join(builders) or "no engine here: writes the typed ONNX file and the commands"
    table.add_row("deblur-export trt", "", _mark(core and bool(builders)), note)
    return table


def _mark(works: bool) -> Text:
    return Text("yes", style="green") if works else Text("no", style="yellow")
