"""Draw close-ups of the same photos restored by every network with demo weights.

    python bench/photos.py FOLDER && python bench/strip.py FOLDER

Writes FOLDER/networks.jpg: for each photo the window with the strongest blur, as it is blurred, as
each network restores it in PyTorch (with local pooling if it has any), and the ground truth.
"""

from __future__ import annotations

import numpy as np
import torch
from demo_picture import enlarged, most_blurred
from pictures import arguments, filled, save_sheet, to_8bit
from PIL import Image
from quality import demo_networks

from deblur_export import models
from deblur_export.export.parity import metrics
from deblur_export.models.checkpoint import load_model

SIDE = 224  # side of each panel in pixels


@torch.no_grad()
def main() -> None:
    (folder,) = arguments("FOLDER")
    photos = filled(folder)
    nets = {
        models.get(name).title: load_model(name, variant, "demo", local).net
        for name, variant, local in demo_networks()  # local forms overwrite the others
    }
    rows = []
    for path in photos:
        blurred, sharp = (
            np.asarray(Image.open(file).convert("RGB"), np.float32) / 255
            for file in (folder / "blurred" / path.name, path)
        )
        window = most_blurred(np.abs(blurred - sharp).max(axis=2))
        images = {"blurred": blurred}
        x = torch.from_numpy(blurred.transpose(2, 0, 1)[None].copy())
        for title, net in nets.items():
            images[title] = net(x)[0].clamp(0, 1).permute(1, 2, 0).numpy()
        before, *after = (metrics.psnr(sharp[window], y[window]) for y in images.values())
        gains = [f"{title}, {y - before:+.1f} dB" for title, y in zip(nets, after, strict=True)]
        panels = [*images.values(), sharp]
        close = [enlarged(to_8bit(image[window]), SIDE) for image in panels]
        rows.append(list(zip(close, ["blurred", *gains, "ground truth"], strict=True)))
    save_sheet(rows, folder / "networks.jpg", SIDE)
    print(f"look at {folder / 'networks.jpg'}")


if __name__ == "__main__":
    main()
