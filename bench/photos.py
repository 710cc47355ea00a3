"""Copy the photos that scikit-image ships into a folder, with their origin and licence.

python bench/photos.py FOLDER
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import skimage.data

PHOTOS = {
    "astronaut.png": "Eileen Collins, NASA, public domain",
    "chelsea.png": "Chelsea the cat, Stefan van der Walt, CC0",
    "coffee.png": "a cup of coffee, Rachel Michetti, CC0",
    "rocket.jpg": "Falcon 9 launch, SpaceX, public domain",
}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(skimage.data.__file__).parent
    for name, origin in PHOTOS.items():
        shutil.copy(source / name, folder / name)
        print(f"{folder / name}: {origin}")


if __name__ == "__main__":
    main()
