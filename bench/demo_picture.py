"""Draw the picture of `make demo`: the predicted mask, and a close-up of the strongest blur.

    python bench/demo_picture.py FOLDER  # which contains blurred, sharp and restored

Writes FOLDER/demo.jpg with a row for each photo: the restored photo with the predicted mask in
orange, then the window with the strongest blur, enlarged, of the blurred photo, the restored photo
and the ground truth.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pictures import arguments, filled, save_sheet
from PIL import Image

from deblur_export.export.parity import metrics

MOVED = 8  # difference between blurred and sharp, of 255 levels, above which a pixel is blurred
WINDOW = 144  # side of the close-ups in pixels
SIDE = 320  # side of each panel in pixels

Bytes = NDArray[np.uint8]


def main() -> None:
    (folder,) = arguments("FOLDER")
    rows = []
    for path in filled(folder):
        parts = [folder / "blurred" / path.name, folder / "restored" / path.name]
        parts += [folder / "restored" / f"{path.stem}_mask.png", path]
        blurred, restored, mask, sharp = (np.asarray(Image.open(p).convert("RGB")) for p in parts)
        difference = np.abs(blurred.astype(np.float32) - sharp).max(axis=2)
        moved = (difference > MOVED).astype(float)
        before, after = (
            metrics.psnr(*(x.transpose(2, 0, 1) / 255 for x in (image, sharp)), weight=moved)
            for image in (blurred, restored)
        )
        window = most_blurred(difference)
        close = [enlarged(image[window], SIDE) for image in (blurred, restored, sharp)]
        captions = ("predicted mask", "blurred")
        captions += (f"restored, {after - before:+.1f} dB where blurred", "ground truth")
        rows.append(list(zip((squared(mask), *close), captions, strict=True)))
        print(f"{path.name}: PSNR where blurred {before:.2f} -> {after:.2f} dB")
    save_sheet(rows, folder / "demo.jpg", SIDE)
    print(f"look at {folder / 'demo.jpg'}")


def most_blurred(difference: NDArray[np.float32]) -> tuple[slice, slice]:
    """Rows and columns of the window of WINDOW x WINDOW pixels with the largest difference."""
    sums = cv2.boxFilter(difference, -1, (WINDOW, WINDOW), normalize=False)
    half = WINDOW // 2
    inside = sums[half : sums.shape[0] - half, half : sums.shape[1] - half]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return slice(int(top), int(top) + WINDOW), slice(int(left), int(left) + WINDOW)


def enlarged(image: Bytes, side: int) -> Bytes:
    """Enlarge an image to side x side pixels without interpolation."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))


def squared(image: Bytes) -> Bytes:
    """Pad an image to a square with white."""
    square = Image.new("RGB", (max(image.shape[:2]),) * 2, "white")
    square.paste(Image.fromarray(image), (0, (square.height - image.shape[0]) // 2))
    return np.asarray(square)


if __name__ == "__main__":
    main()
