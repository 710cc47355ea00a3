"""How well the demo weights deblur: every network on the test part of a pool.

    python bench/pairs.py --fetch PHOTOS && python bench/pairs.py POOL --photos PHOTOS
    python bench/quality.py --pool POOL [--json FILE]

Networks run in PyTorch, float32, on whole 256x256 images. PSNR, SSIM and their forms weighted by
the true blur mask (PSNR_w, SSIM_w, as in Li et al., ReLoBlur) are means over the blurred pairs.
What PSNR_w gains is also given by the longest motion in the pair; the PSNR of sharp photos, without
noise or JPEG, after the network stands in the last but one column. `-local` is the network exported
with `--local`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from ops import machine
from rich.console import Console
from rich.progress import track

from deblur_export import models
from deblur_export.export import metrics
from deblur_export.export.checkpoint import DEMO_FOLDER, LoadedModel, load_model
from deblur_export.models.complexity import count_parameters
from deblur_export.models.training.losses import coarse_mask
from deblur_export.models.training.pool import Batch, Pool, extent
from deblur_export.models.training.scores import MaskRecorder

COLUMNS = ("PSNR", "SSIM", "PSNR_w", "SSIM_w")
GAIN = COLUMNS.index("PSNR_w")
EXTENTS = ((0.0, 8.0), (8.0, 16.0), (16.0, math.inf))  # pixels, the second included
SHARP_PHOTOS = 20
Scores = NDArray[np.float64]  # [pairs, 4]
Network = Callable[[torch.Tensor], torch.Tensor]


def demo_models() -> list[LoadedModel]:
    """Every network that has demo weights, also with local pooling where it has that."""
    names = sorted(path.stem.split("_") for path in DEMO_FOLDER.glob("*.safetensors"))
    return [
        load_model(name, variant, "demo", local)
        for name, variant in names
        for local in (False, True)[: 1 + models.get(name).local]
    ]


def scores(net: Network, pairs: list[Batch], title: str) -> Scores:
    """What `COLUMNS` says, of each pair."""
    rows = []
    for pair in track(pairs, title, transient=True):
        restored = array(net(pair.blurred))
        sharp, mask = array(pair.sharp), pair.mask[0, 0].numpy()
        rows.append(
            (
                metrics.psnr(sharp, restored),
                metrics.ssim(sharp, restored),
                metrics.psnr(sharp, restored, weight=mask),
                metrics.ssim(sharp, restored, weight=mask),
            )
        )
    return np.array(rows)


def means(s: Scores) -> dict[str, float]:
    return dict(zip(COLUMNS, s.mean(axis=0).tolist(), strict=True))


def gains(after: Scores, before: Scores, extents: NDArray[np.float64]) -> list[float]:
    """Mean gain of PSNR_w in dB, over all pairs and over those of each range of `EXTENTS`."""
    gained = after[:, GAIN] - before[:, GAIN]
    ranges = [(extents > low) & (extents <= high) for low, high in EXTENTS]
    return [float(gained.mean()), *(float(gained[chosen].mean()) for chosen in ranges)]


def array(image: torch.Tensor) -> NDArray[np.float32]:
    """[1, 3, H, W] -> [3, H, W], as it would be shown."""
    return image[0].clamp(0, 1).numpy()


def sharp_kept(net: Network, pairs: list[Batch]) -> float:
    """Mean PSNR of clean sharp photos after the network."""
    every = max(len(pairs) // SHARP_PHOTOS, 1)
    images = [pair.sharp for pair in pairs[::every]]
    return float(np.mean([metrics.psnr(array(x), array(net(x))) for x in images]))


def mask_iou(model: LoadedModel, pairs: list[Batch]) -> float | None:
    """Intersection over union of found and true blur, at an eighth of the size; None without."""
    seen = MaskRecorder(model.net)
    union = intersection = 0.0
    for pair in pairs:
        model.net(pair.blurred)
        if seen.mask is None:
            return None
        found, true = seen.mask > 0, coarse_mask(pair.mask, seen.mask.shape[-2:]) > 0
        intersection += float((found & true).sum())
        union += float((found | true).sum())
    seen.remove()
    return intersection / union


def row(title: str, parameters: str, s: dict[str, float], rest: list[str]) -> str:
    cells = (f"{s['PSNR']:.2f}", f"{s['SSIM']:.4f}", f"{s['PSNR_w']:.2f}", f"{s['SSIM_w']:.4f}")
    return f"| {' | '.join([title, parameters, *cells, *rest])} |"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="write every number here")
    options = parser.parse_args()
    console = Console(width=200)
    pool = Pool(options.pool, "test")
    everything = list(pool.whole(len(pool), 1))
    blurred = [pair for pair in everything if float(pair.mask.max()) > 0]
    networks = demo_models()
    for key, value in machine().items():
        console.print(f"{key}: {value}")
    console.print(f"{len(blurred)} blurred pairs of {len(everything)}\n")
    extents = np.array([extent(pair.motion[0].permute(1, 2, 0).numpy()) for pair in blurred])
    before = scores(lambda x: x, blurred, "blurred input")
    report: dict[str, object] = {"machine": machine(), "pairs": len(blurred)}
    report["input"] = means(before)
    lines = [
        "| network | parameters | PSNR | SSIM | PSNR_w | SSIM_w | PSNR_w gained | up to 8 px | "
        "8 to 16 px | beyond | sharp photo | mask IoU |",
        "|---" * 12 + "|",
        row("blurred input", "", means(before), [" "] * 6),
    ]
    for model in networks:
        result = scores(model.net, blurred, model.title)
        gained = gains(result, before, extents)
        kept, iou = sharp_kept(model.net, everything), mask_iou(model, everything)
        shown = [*(f"{gain:+.2f} dB" for gain in gained), f"{kept:.1f} dB"]
        shown.append("" if iou is None else f"{iou:.2f}")
        parameters = count_parameters(model.net)
        lines.append(row(model.title, f"{parameters:,}", means(result), shown))
        figures = {**means(result), "gained": gained, "sharp": kept, "mask_iou": iou}
        report[model.title] = {**figures, "parameters": parameters, "sha256": model.sha256}
    print("\n".join(lines))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
