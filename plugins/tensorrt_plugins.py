"""The custom ops as TensorRT plugins (csrc/tensorrt/, libdeblur_plugins.so); optional.

    trtexec --onnx=net.onnx --dynamicPlugins=libdeblur_plugins.so
    tensorrt.get_plugin_registry().load_library("libdeblur_plugins.so")

The library lies beside this file (`deblur-export plugins build` makes it where there are nvcc and
the headers of TensorRT), or where the environment variable DEBLUR_PLUGINS_LIBRARY says; with the
value `none`, none is used. It fits the major release of TensorRT whose headers it was made with.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from deblur_export.plugins.tensorrt_build import LIBRARY

# DEBLUR_PLUGINS_VERSION of csrc/tensorrt/plugin.h: a library of another version is not used.
VERSION = 1
PACKAGED = Path(__file__).parent / LIBRARY
# csrc/tensorrt/library.cpp puts it there: a wrong library is not even loaded.
MADE_FOR = re.compile(rb"deblur plugins (\d+) for TensorRT (\d+)\.(\d+)")
REMEDY = "`deblur-export plugins build` makes it anew"


class Found(NamedTuple):
    """The library, or None and why."""

    path: Path | None
    reason: str = ""


def library_path() -> Path | None:
    """Where the library should be; None where it is switched off."""
    path = os.environ.get("DEBLUR_PLUGINS_LIBRARY")
    if path == "none":
        return None
    return Path(path) if path else PACKAGED


def find(major: int | None = None) -> Found:
    """The library for a major release of TensorRT; with None, for whichever it was made."""
    path = library_path()
    if path is None:
        return Found(None, "switched off by DEBLUR_PLUGINS_LIBRARY=none")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Found(None, f"no {path}; `deblur-export plugins build` makes it")
    except OSError as error:
        return Found(None, f"{path}: {error.strerror}")
    made_for = MADE_FOR.search(content)
    if made_for is None:
        return Found(None, f"{path} is no library of these plugins; {REMEDY}")
    version, other = int(made_for[1]), int(made_for[2])
    if version != VERSION:
        return Found(None, f"{path} has version {version} of the plugins, not {VERSION}; {REMEDY}")
    if major not in (None, other):
        return Found(None, f"{path} is for TensorRT {other}, not {major}; {REMEDY}")
    return Found(path.absolute())
