"""Measure whole networks in PyTorch on the GPU of this machine, with the CUDA kernels and without.

    python bench/networks_cuda.py [--size 720x1280] [--network NAME ...] [--json FILE]

Both use the same discrete choices, so that the error against float64 is only arithmetic. The mask
of M2AENet is forced to a coverage of 10 %; the layers that predict it are still computed. Weights
are random, because only the time matters. The file of results is written after
each result and keeps those of other networks. `bench/tables.py` makes the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import gpu_timing as timing
import torch
from gpu_timing import KERNEL, Result
from torch import Tensor, nn

from deblur_export.errors import DeblurExportError
from deblur_export.export.timing.coverage import blob_mask, mask_shape
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
TINY_SIZE = (32, 48)  # of a dry run


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


def bench(name: str, variant: str, size: tuple[int, int], bf16: bool) -> Result:
    """Measure a network in float32 without TF32, or with autocast to bfloat16."""
    model = load_model(name, variant, "random:0")
    net, mask = model.net, model.spec.blur_mask
    choices: dict[str, Tensor] = {}
    if mask is not None:
        forced = blob_mask(*mask_shape(net, mask, *size), COVERAGE)
        choices[mask] = torch.from_numpy(forced).to(timing.DEVICE)
    image = torch.rand(1, 3, *size, device=timing.DEVICE)
    net = net.to(timing.DEVICE)

    def run() -> Tensor:
        autocast = torch.autocast(timing.DEVICE, torch.bfloat16) if bf16 else nullcontext()
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
    candidates = {KERNEL: run} | ({} if name in PLAIN else {WITHOUT: without})
    return timing.measure(candidates, exact, 2 * timing.size(image), REPEATS)


def parse_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"'{text}' is not HEIGHTxWIDTH")
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=parse_size, default=(720, 1280), metavar="HEIGHTxWIDTH")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="[all]")
    parser.add_argument("--dry-run", action="store_true", help="tiny networks on the CPU, no GPU")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    if options.dry_run:
        timing.DEVICE, options.size = "cpu", TINY_SIZE
    timing.check_writable(options.json)
    timing.require_gpu("bench/networks_cuda.py")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    height, width = options.size
    about = timing.machine() | {"size": f"{width} x {height}"}
    for key, value in about.items():
        print(f"{key}: {value}")
    failed = False
    for name in options.network or NETWORKS:
        variant = "tiny" if options.dry_run else NETWORKS[name]
        for bf16 in (False, True):
            title = f"{name}:{variant}, {'bfloat16 autocast' if bf16 else 'float32'}"
            try:
                result = bench(name, variant, options.size, bf16)
            except (RuntimeError, DeblurExportError) as error:  # out of memory is one of these
                result = Result(0, {}, str(error).splitlines()[0][:300])
            torch.cuda.empty_cache()
            print_result(title, result)
            failed = failed or bool(result.failed)
            timing.add_results(options.json, about, {title: result})
    if failed:
        raise SystemExit(1)


def print_result(title: str, result: Result) -> None:
    if result.failed:
        print(f"{title} failed: {result.failed}", flush=True)
    for candidate, found in result.candidates.items():
        eager = "" if found.graph else "  (launches included)"
        print(
            f"{title:36} {candidate:26} {found.median:9.2f} ms  {found.error:.0e}{eager}",
            flush=True,
        )


if __name__ == "__main__":
    main()
