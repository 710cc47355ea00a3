"""Whole networks at 1280x720 on this machine's CPU, by `deblur-export bench`, peers side by side.

    python bench/networks.py [NAME ...]

Writes network_NAME.json here, one a run; memory_algnet.json is about the growth of memory with the
image, profile_algnet.json about where the time goes. `bench/tables.py` makes the tables. Minutes
each, and several GB: nothing else should run. The networks have random weights, only their time
counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
RANDOM = (
    "--weights",
    "random:0",
    "--size",
    "720x1280",
    "--precision",
    "fp32",
    "--precision",
    "bf16",
)


def peers(*names: str) -> tuple[str, ...]:
    return tuple(word for name in names for word in ("--peers", name))


RUNS: dict[str, tuple[str, ...]] = {
    "nafnet": (
        *("--model", "nafnet", "--variant", "32", "--profile", *RANDOM),
        *peers("torch-eager", "ort-plain", "ort-ours", "openvino-plain", "openvino-ours"),
    ),
    "m2aenet": (
        *("--model", "m2aenet", "--variant", "base", "--reference", "nafnet:32", *RANDOM),
        *("--coverage", "10", "--coverage", "100", "--profile"),
        *peers("ort-ours", "openvino-ours"),
    ),
    # M2AENet against NAFNet is close: more repeats, nothing else in memory.
    "m2aenet_bf16": (
        *("--model", "m2aenet", "--variant", "base", "--reference", "nafnet:32"),
        *("--weights", "random:0", "--size", "720x1280", "--precision", "bf16"),
        *("--coverage", "10", "--coverage", "100", "--repeats", "8"),
        *peers("openvino-ours"),
    ),
    "memory_algnet": (
        *("--model", "algnet", "--variant", "32", "--weights", "random:0", "--repeats", "2"),
        *("--size", "180x320", "--size", "360x640", "--size", "720x1280"),
        *peers("openvino-ours"),
    ),
    "algnet": (
        *("--model", "algnet", "--variant", "32", "--repeats", "3", *RANDOM),
        *peers("ort-ours", "openvino-ours"),
    ),
    # ONNX Runtime's profile of it takes a quarter of an hour.
    "profile_algnet": (
        *("--model", "algnet", "--variant", "32", "--repeats", "2", "--profile", *RANDOM),
        *peers("openvino-ours"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(RUNS)}; all of them")
    names = parser.parse_args().names or list(RUNS)
    if unknown := sorted(set(names) - set(RUNS)):
        parser.error(f"no run '{unknown[0]}'; there are {', '.join(RUNS)}")
    for name in names:
        command = [sys.executable, "-m", "deblur_export", "bench", *RUNS[name]]
        whole = not name.startswith(("memory_", "profile_"))
        file = f"network_{name}" if whole else name
        subprocess.run([*command, "--json", str(FOLDER / f"{file}.json")], check=True)


if __name__ == "__main__":
    main()
