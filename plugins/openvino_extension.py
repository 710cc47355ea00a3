"""The custom ops as an OpenVINO extension (csrc/openvino/, libdeblur_openvino.so); optional.

    core = openvino.Core()
    core.add_extension("libdeblur_openvino.so")
    model = core.read_model("network.onnx")

The library lies beside this file (`deblur-export plugins build` makes it where OpenVINO is
installed), or where the environment variable DEBLUR_OPENVINO_LIBRARY says; with the value `none`,
none is used. It fits the release of OpenVINO that it was built for, no other.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from deblur_export.plugins.native import VERSION
from deblur_export.plugins.native_build import EXTENSION

PACKAGED = Path(__file__).parent / EXTENSION
# csrc/openvino/extension.cpp puts it there: a wrong library is not even loaded.
MADE_FOR = re.compile(rb"deblur ops (\d+) for OpenVINO ([\d.]+)")
REMEDY = "`deblur-export plugins build` makes it anew"


class Found(NamedTuple):
    """The library, or None and why."""

    path: Path | None
    reason: str = ""


def library_path() -> Path | None:
    """Where the library should be; None where it is switched off."""
    path = os.environ.get("DEBLUR_OPENVINO_LIBRARY")
    if path == "none":
        return None
    return Path(path) if path else PACKAGED


def find(release: str) -> Found:
    """The library for a release of OpenVINO, such as 2026.4.1 or openvino.__version__."""
    path = library_path()
    if path is None:
        return Found(None, "switched off by DEBLUR_OPENVINO_LIBRARY=none")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Found(None, f"no {path}; `deblur-export plugins build` makes it")
    except OSError as error:
        return Found(None, f"{path}: {error.strerror}")
    made_for = MADE_FOR.search(content)
    if made_for is None:
        return Found(None, f"{path} is no library of these ops; {REMEDY}")
    version, other = int(made_for[1]), made_for[2].decode()
    release = release.split("-")[0]
    if other != release:
        return Found(None, f"{path} is for OpenVINO {other}, not {release}; {REMEDY}")
    if version != VERSION:
        return Found(None, f"{path} has version {version} of the ops, not {VERSION}; {REMEDY}")
    return Found(path.absolute())
