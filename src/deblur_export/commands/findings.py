"""The findings of `doctor`: what is installed, what works on this machine, what to install."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator

from rich.table import Column, Table
from rich.text import Text

from deblur_export import telemetry
from deblur_export.export.engines import registry as builders
from deblur_export.export.runtimes.probe import Finding, trial, try_package
from deblur_export.export.runtimes.registry import DEFAULT, ENTRIES, backend
from deblur_export.target import TARGETS

CORE = {
    "torch": "import torch; torch.nn.functional.conv2d(torch.ones(1,1,3,3), torch.ones(1,1,3,3))",
    "onnx": "import onnx; onnx.checker",
    "onnxscript": "import onnxscript",
    "polygraphy": "import polygraphy.backend.onnxrt, polygraphy.comparator",
    "onnx-graphsurgeon": "import onnx_graphsurgeon",
    "opencv-python-headless": "import cv2; cv2.imencode",
    "pillow": "from PIL import Image; Image.new('RGB', (2, 2)).tobytes()",
}
# Opened as `trt` opens them, so that the note is the reason that `trt` would give.
BUILDER_PROBE = """
import sys
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines.registry import ENTRIES
from deblur_export.export.engines.options import BuildOptions
try:
    builder = ENTRIES["{}"].make(BuildOptions())
except DeblurExportError as error:
    sys.exit(str(error))
trt = builder.trt
assert trt.Builder(trt.Logger(trt.Logger.ERROR)), "no builder could be made"
print(builder.covers)
"""
NEVER_RUN = "never run on a GPU by its authors"
NATIVE_PROBE = """
import torch
from deblur_export.plugins.libraries import cpu
from deblur_export.plugins.ops.selective_scan import selective_scan
assert cpu.available(), "not used"
x, one = torch.ones(1, 1, 1), torch.ones(1, 1)
assert selective_scan(x, x, -one, x, x, one[0], delta_softplus=0).item() == 2
print(cpu.instruction_set(), "of", ", ".join(cpu.instruction_sets()))
"""


def core_findings() -> Iterator[Finding]:
    """Findings about libraries that every verb needs."""
    yield from (try_package(name, code, "deblur-export") for name, code in CORE.items())
    yield from _told(DEFAULT, lambda: backend(DEFAULT).findings())


def other_findings() -> Iterator[Finding]:
    """Findings about libraries and tools that some verbs need or use to be faster."""
    for name in ENTRIES:
        if name != DEFAULT:
            yield from _told(name, lambda name=name: backend(name).findings())  # type: ignore[misc]
    yield from _told("engine builders", _builders)
    yield from (_native(), _cuda_kernels(), _cuda(), _tool("nvcc"), _tool("trtexec"))


def _told(name: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of `look`; if it needs a library that is missing, a finding that says so."""
    try:
        yield from look()
    except ImportError as error:
        yield Finding(name, "-", False, f"{error}; pip install 'deblur-export'")


def _builders() -> Iterator[Finding]:
    for name, builder in builders.ENTRIES.items():
        probe = BUILDER_PROBE.format(name)
        yield try_package(builder.package, probe, builder.install, builds=builder.package)


def _native() -> Finding:
    """Whether a native CPU kernel of the custom ops can be called."""
    from deblur_export.plugins.libraries.cpu import FILE, VERSION

    name = "native CPU kernels"
    path, reason = FILE.find()
    if path is None:
        return Finding(name, "-", False, reason)
    works, lines = trial(NATIVE_PROBE)
    if works:
        return Finding(name, str(VERSION), True, lines[-1])
    return Finding(name, "-", False, next((i for i in lines if "native" in i), lines[-1]))


def _cuda_kernels() -> Finding:
    """Whether the CUDA library can be loaded and there is a GPU that it has code for."""
    import torch

    from deblur_export.plugins.compile.cuda import OLDEST
    from deblur_export.plugins.libraries import cuda

    name = "CUDA kernels"
    path, reason = cuda.FILE.find()
    if path is None:
        return Finding(name, "-", False, reason)
    if not cuda.available():
        return Finding(name, "-", False, f"{path.name} cannot be used; plugins build makes it anew")
    needed = f"a GPU of compute capability {OLDEST / 10} or newer; {NEVER_RUN}"
    version = str(cuda.VERSION)
    if not torch.cuda.is_available():
        return Finding(name, version, False, f"built; they need {needed}")
    capability = torch.cuda.get_device_capability()
    if not cuda.runs_on(capability):
        own = ".".join(map(str, capability))
        return Finding(name, version, False, f"this GPU has {own}, and they need {needed}")
    return Finding(name, version, True, NEVER_RUN)


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
    """A table of the components, then of the verbs that work with them."""
    table = Table("component", "version", "works", Column("note", overflow="fold"))
    core, others = list(core_findings()), list(other_findings())
    for finding in (*core, *others):
        table.add_row(finding.name, finding.version, mark(finding.works), finding.note)
    table.add_row("telemetry", "", "", telemetry.state())
    table.add_section()
    core_works = all(finding.works for finding in core)
    working = [finding for finding in (*core, *others) if finding.works]
    runtimes = ", ".join(finding.runs for finding in working if finding.runs)
    opsets = " and ".join(map(str, sorted({target.opset for target in TARGETS.values()})))
    for verb, note in (("onnx", f"opset {opsets}"), ("verify", runtimes), ("run", runtimes)):
        table.add_row(f"deblur-export {verb}", "", mark(core_works), note)
    builders = [finding.builds for finding in working if finding.builds]
    note = ", ".join(builders) or "no engine here: writes the typed ONNX file and the commands"
    table.add_row("deblur-export trt", "", mark(core_works and bool(builders)), note)
    return table


def mark(works: bool) -> Text:
    return Text("yes", style="green") if works else Text("no", style="yellow")
