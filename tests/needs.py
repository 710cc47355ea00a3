"""What tests need beside the package's own requirements, and what to install where it is missing.

A test that is skipped for lack of one gives its `reason`; conftest.py sums those up at the end.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType

import pytest

from deblur_export.plugins.compile import cpu as cpu_compiler
from deblur_export.plugins.libraries import cpu

REASON = re.compile(r"needs (?P<what>.+?): (?P<remedy>.+)")


@dataclass(frozen=True)
class Need:
    """Something that a machine has or has not, and how it gets it."""

    what: str
    remedy: str
    module: str = ""

    @property
    def reason(self) -> str:
        return f"needs {self.what}: {self.remedy}"

    def mark(self, there: bool) -> pytest.MarkDecorator:
        """Skips a test where it is not there."""
        return pytest.mark.skipif(not there, reason=self.reason)

    def installed(self) -> bool:
        """Whether the module can be found; it is not imported."""
        return importlib.util.find_spec(self.module) is not None

    def require(self) -> None:
        """Skip the test that asks where the module is not installed."""
        if not self.installed():
            pytest.skip(self.reason)

    def load(self) -> ModuleType:
        """The module; the test that asks is skipped where it is not installed."""
        self.require()
        return importlib.import_module(self.module)


def _extra(what: str, module: str, extra: str) -> Need:
    return Need(what, f"pip install 'deblur-export[{extra}]'", module)


OPENVINO = _extra("OpenVINO", "openvino", "openvino")
RTX = _extra("TensorRT for RTX", "tensorrt_rtx", "rtx")
MATPLOTLIB = _extra("matplotlib", "matplotlib", "plots")
SKIMAGE = _extra("scikit-image", "skimage", "dev")
TIFFFILE = _extra("tifffile", "tifffile", "dev")  # comes with scikit-image
ONNXSIM = _extra("onnxsim", "onnxsim", "dev")
ONNXSLIM = _extra("onnxslim", "onnxslim", "dev")
SPANDREL = Need("spandrel", "pip install --no-deps 'spandrel>=0.4.2,<0.5' einops", "spandrel")
KERNELS = Need("the native kernels", "deblur-export plugins build")
EXTENSION = Need("the OpenVINO extension", "deblur-export plugins build")
COMPILER = Need("a C++ compiler", "install g++ or clang++")
CMAKE = Need("cmake", "pip install cmake")
STRACE = Need("strace", "apt-get install strace")
NVCC = Need("nvcc", "install the CUDA toolkit")

compiler = COMPILER.mark(any(map(shutil.which, cpu_compiler.COMPILERS)))
kernels = KERNELS.mark(cpu.available())


def summary(reasons: Iterable[str]) -> str:
    """One line: how many tests were skipped for lack of what, and how to get it; "" for none."""
    found = (REASON.search(reason) for reason in reasons)
    counts = Counter(match.group("what", "remedy") for match in found if match)
    parts = [f"{n} for lack of {what} ({remedy})" for (what, remedy), n in counts.most_common()]
    return f"skipped tests: {', '.join(parts)}" if parts else ""
