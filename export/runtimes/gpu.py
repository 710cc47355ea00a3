"""The number and compute capability of the GPUs, read from the NVIDIA driver without any CUDA
library."""

from __future__ import annotations

import ctypes
import sys

# The driver's attribute numbers of the major and minor version of the compute capability.
MAJOR, MINOR = 75, 76


def gpu_count() -> int:
    """The number of CUDA devices that the driver sees; 0 without a driver."""
    driver = _driver()
    count = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def compute_capability() -> str:
    """The compute capability of the first device, like "8.9"; empty without a device."""
    driver = _driver()
    device, major, minor = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return ""
    for value, number in ((major, MAJOR), (minor, MINOR)):
        if driver.cuDeviceGetAttribute(ctypes.byref(value), number, device) != 0:
            return ""
    return f"{major.value}.{minor.value}"


def _driver() -> ctypes.CDLL | None:
    """The initialised driver; None without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None
