"""Exports trained image-deblurring networks to ONNX and checks that they compute the same.

>>> import deblur_export
>>> model = deblur_export.load_model("nafnet", "demo")
>>> artifact = deblur_export.export_onnx(model, "net.onnx")
>>> deblur_export.verify(artifact).passed
True
>>> session = deblur_export.open_session(artifact)
>>> import numpy
>>> session(numpy.zeros((48, 64, 3), numpy.uint8)).shape
(48, 64, 3)

Importing this package imports nothing heavy; the functions do when they are first named. It turns
the telemetry of ONNX Runtime and OpenVINO off, see `telemetry`: import it before them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from deblur_export import telemetry
from deblur_export.errors import CheckFailedError, DeblurExportError

if TYPE_CHECKING:
    from deblur_export.api.adopt import adopt
    from deblur_export.api.engine import build_engine
    from deblur_export.api.export import calibrate, export_onnx
    from deblur_export.api.loading import Given, adapt, load_model
    from deblur_export.api.parity import verify
    from deblur_export.api.session import open_session
    from deblur_export.artifact import Artifact

__version__ = "0.1.0"
__all__ = [
    "Artifact",
    "CheckFailedError",
    "DeblurExportError",
    "Given",
    "adapt",
    "adopt",
    "build_engine",
    "calibrate",
    "export_onnx",
    "load_model",
    "open_session",
    "verify",
]
_WHERE = {
    "Artifact": "artifact",
    "Given": "api.loading",
    "adapt": "api.loading",
    "adopt": "api.adopt",
    "build_engine": "api.engine",
    "calibrate": "api.export",
    "export_onnx": "api.export",
    "load_model": "api.loading",
    "open_session": "api.session",
    "verify": "api.parity",
}

telemetry.turn_off()


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    found = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
