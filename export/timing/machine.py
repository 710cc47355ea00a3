"""Describes the machine of a measurement."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from deblur_export.export.runtimes.registry import backends

PACKAGES = ("torch", "onnx")
CPUINFO = Path("/proc/cpuinfo")
SHOWN_FLAGS = ("avx2", "avx512", "amx")
# Flags of bfloat16 instructions on x86 and Arm.
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"})


def machine(threads: int) -> dict[str, str]:
    """Processor, cores, relevant instruction sets, load average and versions of libraries."""
    from deblur_export.plugins.libraries import cpu

    measured = (backend.package for _, backend in backends() if backend.bench_targets)
    packages = (*PACKAGES, *dict.fromkeys(measured))
    versions = [f"Python {platform.python_version()}", *map(_version, packages)]
    shown = sorted(flag for flag in cpu_flags() if flag.startswith(SHOWN_FLAGS))
    return {
        "cpu": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": f"{physical_cores()} physical, {len(affinity())} logical",
        "threads": str(threads),
        "flags": " ".join(shown),
        "load": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "",
        "versions": ", ".join(versions),
        "native kernels": cpu.instruction_set() or "not built",
    }


def affinity() -> set[int]:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def physical_cores() -> int:
    """The number of physical cores among them; only Linux says which hardware threads share one."""
    return len({_siblings(number) for number in affinity()})


def cpu_flags() -> frozenset[str]:
    """Instruction sets by their names in Linux; empty on other systems."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def bf16_reason() -> str:
    """Why PyTorch has no fast bf16 on this processor; empty if it has or this is not known."""
    flags = cpu_flags()
    return "" if not flags or flags & BF16_FLAGS else "this processor has no bf16 arithmetic"


def _siblings(number: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return str(number)


def _cpuinfo(name: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty if there is none."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in fields if key.strip() == name), "")


def _version(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"no {package}"
