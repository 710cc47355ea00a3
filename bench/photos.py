"""Blur the photos in the wheel of scikit-image, which the demo weights were not trained on.

    python bench/photos.py FOLDER

Writes FOLDER/blurred and the ground truth FOLDER/sharp as PNG files of the same names, and prints
origin and licence of each photo.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from pictures import arguments, to_8bit
from PIL import Image

from deblur_export.models.training.data.blur import synthesize

# Name, origin, and the seed of a blur that illustrates local motion.
PHOTOS = {
    "astronaut.png": ("Eileen Collins, NASA, public domain", 8),
    "chelsea.png": ("Chelsea the cat, Stefan van der Walt, CC0", 6),
    "coffee.png": ("a cup of coffee, Rachel Michetti, CC0", 8),
    "rocket.jpg": ("Falcon 9 launch, SpaceX, public domain", 9),
}
MULTIPLE = 16


def main() -> None:
    (folder,) = arguments("FOLDER")
    for part in ("blurred", "sharp"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, (origin, seed) in PHOTOS.items():
        photo = np.asarray(Image.open(Path(skimage.data.__file__).parent / name).convert("RGB"))
        height, width = (side // MULTIPLE * MULTIPLE for side in photo.shape[:2])
        pair = synthesize(photo, seed, (height, width), "local")
        target = Path(name).with_suffix(".png").name
        for part, image in (("blurred", pair.blurred), ("sharp", pair.sharp)):
            Image.fromarray(to_8bit(image)).save(folder / part / target)
        print(f"{folder / 'blurred' / target}: {origin}")


if __name__ == "__main__":
    main()
