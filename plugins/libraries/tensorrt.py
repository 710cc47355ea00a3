"""The custom ops as TensorRT plugins (csrc/tensorrt/, libdeblur_plugins.so); optional.

    trtexec --onnx=net.onnx --dynamicPlugins=libdeblur_plugins.so
    tensorrt.get_plugin_registry().load_library("libdeblur_plugins.so")

`deblur-export plugins build` makes the library where there are nvcc and the headers of TensorRT; it
fits the major release of those headers. The environment variable DEBLUR_PLUGINS_LIBRARY says where
else it lies, or `none` for no library.
"""

from __future__ import annotations

import re

from deblur_export.plugins.compile.tensorrt import LIBRARY
from deblur_export.plugins.libraries.library_file import Found, LibraryFile

# DEBLUR_PLUGINS_VERSION of csrc/tensorrt/plugin.h: a library of another version is not used.
VERSION = 1
FILE = LibraryFile(LIBRARY, "DEBLUR_PLUGINS_LIBRARY")
# csrc/tensorrt/library.cpp puts it there.
MADE_FOR = re.compile(rb"deblur plugins (\d+) for TensorRT (\d+)\.\d+")


def find(major: int | None = None) -> Found:
    """The library, if it was made for a major release of TensorRT; None accepts any release."""

    def fault(version: str, release: str) -> str:
        if int(version) != VERSION:
            return f"has version {version} of the plugins, not {VERSION}"
        if major not in (None, int(release)):
            return f"is for TensorRT {release}, not {major}"
        return ""

    return FILE.find_marked(MADE_FOR, fault)
