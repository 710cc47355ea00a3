"""Keeps the runtimes from reporting to their makers, unless the user has asked for that.

Importing the package calls `turn_off`, before any runtime is imported; processes that ours start
inherit the variable and import the package first.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

# ONNX Runtime reads it while it is imported.
ORT_SWITCH = "ORT_DISABLE_TELEMETRY"
ORT_OFF = ("1", "true", "yes", "on", "y")  # tried with 1.32, in small and capital letters
OPENVINO_PACKAGE = "openvino_telemetry"


def turn_off() -> None:
    """Turn the telemetry of ONNX Runtime and OpenVINO off in this process.

    ONNX Runtime 1.32 stores an identifier and a queue of events below the home folder and sends
    them; an `ORT_DISABLE_TELEMETRY` that the user has set, as in `ORT_DISABLE_TELEMETRY=0`, stays.

    OpenVINO reports each import by the distribution `openvino-telemetry` and has no variable
    against it, but replaces that distribution by a stub of its own where it cannot be imported.
    The user's consent, given with `opt_in_out --opt_in`, stays in force, and so does a module that
    was imported earlier.
    """
    if not os.environ.get(ORT_SWITCH):
        os.environ[ORT_SWITCH] = "1"
    if not openvino_consent():
        modules: dict[str, Any] = sys.modules
        modules.setdefault(OPENVINO_PACKAGE, None)  # so that importing it raises ImportError


def openvino_consent() -> bool:
    """Whether the user has allowed OpenVINO's telemetry: its file of consent holds a 1."""
    try:
        return consent_file().read_text(encoding="utf-8", errors="replace").strip() == "1"
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return False


def consent_file() -> Path:
    """The file in which `opt_in_out` stores the consent."""
    if platform.system() == "Windows":
        return Path(os.environ.get("LOCALAPPDATA", "")) / "Intel Corporation" / OPENVINO_PACKAGE
    return Path.home() / "intel" / OPENVINO_PACKAGE


def state() -> str:
    """What is off and what is on in this process, in one line."""
    ort = os.environ.get(ORT_SWITCH, "").lower() in ORT_OFF
    openvino = sys.modules.get(OPENVINO_PACKAGE, ...) is None
    on = {
        f"ONNX Runtime ({ORT_SWITCH}={os.environ.get(ORT_SWITCH, '')})": not ort,
        f"OpenVINO ({consent_file()})": not openvino,
    }
    names = [name for name, is_on in on.items() if is_on]
    return f"on, as you chose: {', '.join(names)}" if names else "off"
