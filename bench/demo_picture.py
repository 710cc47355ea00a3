"""The picture of `make demo`: blurred, restored, what was taken for blurred, and the truth.

python bench/demo_picture.py FOLDER  # with blurred, sharp and restored inside
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from pictures import save_sheet
from PIL import Image

from deblur_export.export import metrics

MOVED = 8  # levels of 255 between blurred and sharp, from which on a pixel counts as blurred


def main() -> None:
    folder = Path(sys.argv[1])
    rows = []
    for path in sorted((folder / "sharp").glob("*.png")):
        parts = [folder / "blurred" / path.name, folder / "restored" / path.name]
        parts += [folder / "restored" / f"{path.stem}_mask.png", path]
        blurred, restored, mask, sharp = (np.asarray(Image.open(p).convert("RGB")) for p in parts)
        moved = (np.abs(blurred.astype(int) - sharp).max(axis=2) > MOVED).astype(float)
        before, after = (
            metrics.psnr(*(x.transpose(2, 0, 1) / 255 for x in (image, sharp)), weight=moved)
            for image in (blurred, restored)
        )
        gained = f"restored, {after - before:+.1f} dB where blurred"
        captions = ("blurred", gained, "taken for blurred", "truth")
        rows.append(list(zip((blurred, restored, mask, sharp), captions, strict=True)))
        print(f"{path.name}: PSNR where blurred {before:.2f} -> {after:.2f} dB")
    save_sheet(rows, folder / "demo.jpg", 400)
    print(f"look at {folder / 'demo.jpg'}")


if __name__ == "__main__":
    main()
