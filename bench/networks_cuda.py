"""Measure whole networks in PyTorch on the GPU of this machine, with the CUDA kernels and without.

    python bench/networks_cuda.py [--size 720x1280] [--network NAME ...] [--json FILE]

Both use the same discrete choices, so that the error against float64 is only arithmetic. The mask
of M2AENet is forced to a coverage of 10 %; the layers that predict it are still computed. Weights
are random, because only the time matters. `bench/tables.py` makes the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import kernels
import torch
from torch import Tensor, nn

from deblur_export.errors import DeblurExportError
from deblur_export.export.timing.coverage import blob_mask, mask_decision, mask_shape
from deblur_export.models.checkpoint import load_model
from deblur_export.models.decisions import decisions
from deblur_export.plugins.libraries import cpu

# The networks that are slowest without kernels are last, so that an interrupted run has the others.
NETWORKS = {
    "nafnet": "32",
    "m2aenet": "base",
    "saphn": "uniform",
    "ufpnet": "64",
    "dhnet": "32",
    "aibnet": "s",
    "algnet": "32",
}
COVERAGE = 0.1
WITHOUT = "the same without kernels"
PLAIN = ("nafnet", "ufpnet", "dhnet")  # these have no custom op
REPEATS = 5


@contextmanager
def chosen(net: nn.Module, choices: dict[str, Tensor]) -> Iterator[None]:
    """A context in which each decision returns its entry of `choices`; its own choice is added if
    there is none."""

    def hook(name: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def decide(module: nn.Module, inputs: object, own: Tensor) -> Tensor:
            if name not in choices:
                choices[name] = own.clone()
            return choices[name].to(own.dtype)

        return decide

    handles = [part.register_forward_hook(hook(name)) for name, part in decisions(net).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def bench(name: str, size: tuple[int, int], bf16: bool) -> kernels.Result:
    """Measure a network in float32 without TF32, or with autocast to bfloat16."""
    net = load_model(name, NETWORKS[name], "random:0").net
    choices: dict[str, Tensor] = {}
    mask = mask_decision(net)
    if mask is not None:
        forced = blob_mask(*mask_shape(net, mask, *size), COVERAGE)
        choices[mask] = torch.from_numpy(forced).to("cuda")
    image = torch.rand(1, 3, *size, device="cuda")
    net = net.to("cuda")

    def run() -> Tensor:
        autocast = torch.autocast("cuda", torch.bfloat16) if bf16 else nullcontext()
        with torch.no_grad(), autocast, chosen(net, choices):
            restored: Tensor = net(image)
        return restored

    def without() -> Tensor:
        with cpu.switched_off():
            return run()

    run()
    with torch.no_grad(), chosen(net.double(), choices), cpu.switched_off():
        exact = net(image.double())
    net.float()
    candidates = {kernels.KERNEL: run} | ({} if name in PLAIN else {WITHOUT: without})
    return kernels.measure(candidates, exact, 2 * kernels.size(image), REPEATS)


def parse_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"'{text}' is not HEIGHTxWIDTH")
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=parse_size, default=(720, 1280), metavar="HEIGHTxWIDTH")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="[all]")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("bench/networks_cuda.py needs a CUDA GPU, and torch sees none", file=sys.stderr)
        raise SystemExit(2)
    kernels.built()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    height, width = options.size
    report: dict[str, Any] = kernels.machine() | {"size": f"{width} x {height}", "results": {}}
    for key, value in report.items():
        print(f"{key}: {value}")
    for name in options.network or NETWORKS:
        for bf16 in (False, True):
            title = f"{name}:{NETWORKS[name]}, {'bfloat16 autocast' if bf16 else 'float32'}"
            try:
                result = bench(name, options.size, bf16)
            except (torch.OutOfMemoryError, DeblurExportError) as error:
                print(f"{title} left out: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            finally:
                torch.cuda.empty_cache()
            for candidate, timing in result.candidates.items():
                eager = "" if timing.graph else "  (launches included)"
                print(
                    f"{title:36} {candidate:26} {timing.median:9.2f} ms  {timing.error:.0e}{eager}",
                    flush=True,
                )
            report["results"][title] = asdict(result)
            options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
