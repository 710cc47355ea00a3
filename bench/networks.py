"""Measure whole networks at 1280x720 on the CPU of this machine with `deblur-export bench`.

    python bench/networks.py [NAME ...]

Writes network_NAME.json here, one for each run; memory_algnet.json shows the growth of memory with
the image, profile_algnet.json the time by operator. `bench/tables.py` makes the tables. Each run
needs minutes and several GB, and nothing else should run. The networks have random weights, because
only their time matters.
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


def candidates(*names: str) -> tuple[str, ...]:
    return tuple(word for name in names for word in ("--candidates", name))


RUNS: dict[str, tuple[str, ...]] = {
    "nafnet": (
        *("--model", "nafnet", "--variant", "32", "--profile", *RANDOM),
        *candidates(
            "torch-eager", "ort-plain", "ort-optimized", "openvino-plain", "openvino-optimized"
        ),
    ),
    "m2aenet": (
        *("--model", "m2aenet", "--variant", "base", "--reference", "nafnet:32", *RANDOM),
        *("--coverage", "10", "--coverage", "100", "--profile"),
        *candidates("ort-optimized", "openvino-optimized"),
    ),
    # M2AENet against NAFNet is close: more repeats, nothing else in memory.
    "m2aenet_bf16": (
        *("--model", "m2aenet", "--variant", "base", "--reference", "nafnet:32"),
        *("--weights", "random:0", "--size", "720x1280", "--precision", "bf16"),
        *("--coverage", "10", "--coverage", "100", "--repeats", "8"),
        *candidates("openvino-optimized"),
    ),
    "memory_algnet": (
        *("--model", "algnet", "--variant", "32", "--weights", "random:0", "--repeats", "2"),
        *("--size", "180x320", "--size", "360x640", "--size", "720x1280"),
        *candidates("openvino-optimized"),
    ),
    "algnet": (
        *("--model", "algnet", "--variant", "32", "--repeats", "3", *RANDOM),
        *candidates("ort-optimized", "openvino-optimized"),
    ),
    # ONNX Runtime's profile of it takes a quarter of an hour.
    "profile_algnet": (
        *("--model", "algnet", "--variant", "32", "--repeats", "2", "--profile", *RANDOM),
        *candidates("openvino-optimized"),
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
