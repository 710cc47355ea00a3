"""A float32 file of ours to an int8 one: calibrated, searched, proved."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from deblur_export.artifact import Artifact
from deblur_export.calibration import images as data
from deblur_export.calibration.cache import Cache, default_folder
from deblur_export.calibration.calibrators import Method, limits
from deblur_export.calibration.facts import precision_map, scales
from deblur_export.calibration.observe import observe
from deblur_export.calibration.placement import Placement, placement
from deblur_export.calibration.qdq import Grid, Layout, grid, quantized, read_tensors
from deblur_export.calibration.scoring import ASSUMED_PSNR, Judge
from deblur_export.calibration.search import Block, Point, Score, blocks_of, ladder, sensitivity
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.graph import graph_of
from deblur_export.export.precision.derived import require_float32
from deblur_export.export.to_onnx import save
from deblur_export.manifest import CalibrationRecord

Progress = Callable[[str], None]
SAVE_EVERY = 8  # images
MAX_DROP = 0.1  # dB
HELD_OUT = 4  # of so many photo crops, one judges and the others calibrate


@dataclass(frozen=True)
class Calibration:
    """Options of a calibration.

    Attributes:
        images: folder of photos to calibrate on.
        dataset: folder that `deblur-export pairs` made. The loss of PSNR is measured on its split
            `val`; its split `train` is calibrated on if `images` is None.
        method: how clipping ranges follow from histograms of activations.
        layout: "tensorrt" for symmetric int8 activations, "cpu" for uint8 ones.
        count: number of images to calibrate on.
        crop: side of the crops from photos in pixels.
        max_drop: allowed loss of PSNR in dB.
        whole: measure every block and every step of the search, even if all blocks in int8 are
            within the budget.
        pairs: number of images to measure the loss of PSNR on.
        cache: folder in which histograms are kept; None is the user's cache folder.
    """

    images: Path | None
    dataset: Path | None = None
    method: Method = "mse"
    layout: Layout = "tensorrt"
    count: int = 48
    crop: int = data.CROP
    max_drop: float = MAX_DROP
    whole: bool = False
    pairs: int = 16
    cache: Path | None = None


@dataclass(frozen=True)
class Calibrated:
    """The int8 file, what was tried on the way to it, and how it was judged."""

    artifact: Artifact
    chosen: Point
    points: tuple[Point, ...]
    alone: Mapping[str, Score]
    blocks: tuple[Block, ...]
    total: int
    judged_by: str


def calibrate(
    artifact: Artifact, options: Calibration, path: Path, progress: Progress = lambda step: None
) -> Calibrated:
    """Write the int8 form of a file: everything in int8 that may be, less the blocks that the
    budget sends back to float32.

    Raises:
        DeblurExportError: the file is not float32, there are no images, or something cannot be
            written.
        CheckFailedError: no block stays within the budget, or the graph is not what was asked for.
    """
    model = _float32_model(artifact, path)
    crops, pairs, judged_by = _images(artifact, options, progress)
    places = placement(model)
    grids = _grids(artifact, model, places, crops, options, progress)

    def graph(nodes: Collection[str]) -> onnx.ModelProto:
        chosen = [site for site in places.sites if site.node in nodes]
        return quantized(model, chosen, grids, options.layout)

    progress("running the float32 graph")
    judge = Judge(model, pairs.blurred, pairs.sharp or None)
    points, alone, blocks = _search(
        places, options, lambda nodes: judge.score(graph(nodes)), progress
    )
    fit = [point for point in points if point.score.drop <= options.max_drop]
    if not fit:
        least = min(points, key=lambda point: point.score.drop)
        raise CheckFailedError(
            f"no block of {artifact.path} stays within {options.max_drop:g} dB in int8: "
            f"{' '.join(least.blocks)} alone costs {least.score.drop:.3f} dB; allow more with "
            "--max-psnr-drop, or try another --method"
        )
    chosen = max(fit, key=lambda point: point.share)
    nodes = {node for block in blocks if block.name in chosen.blocks for node in block.nodes}
    progress("checking and writing")
    final = graph(nodes)
    record = CalibrationRecord(
        method=options.method,
        layout=options.layout,
        images=crops.names,
        images_sha256=crops.fingerprint,
        scales=scales(final, grids),
        max_psnr_drop=options.max_drop if math.isfinite(options.max_drop) else None,
        psnr_drop=round(chosen.score.drop, 4),
        psnr_drop_means=judged_by,
    )
    manifest = artifact.manifest.derived(
        precision="int8",
        precision_map=precision_map(final, places, nodes),
        calibration=record,
    )
    written = save(graph_of(final), path, manifest)
    return Calibrated(written, chosen, points, alone, blocks, places.total, judged_by)


def _float32_model(artifact: Artifact, path: Path) -> onnx.ModelProto:
    require_float32(artifact, "int8")
    check_output(path)
    return artifact.proto


def check_output(path: Path) -> None:
    """Raises DeblurExportError if an .onnx file cannot lie there."""
    if path.suffix != ".onnx":
        raise DeblurExportError(f"{path}: the output must end in .onnx")
    if not path.parent.is_dir():
        raise DeblurExportError(f"{path.parent}: no such folder; create it first")


def check_sources(options: Calibration) -> None:
    """Raises DeblurExportError if there is nothing to calibrate on."""
    if options.dataset is None and options.images is None:
        raise DeblurExportError("int8 needs images to calibrate on; give --images or --dataset")
    if options.images is not None:
        data.photo_files(options.images)


def _images(
    artifact: Artifact, options: Calibration, progress: Progress
) -> tuple[data.Crops, data.Pairs, str]:
    """What calibrates, what judges, and in words what a drop is."""
    check_sources(options)
    pairs = None
    if options.dataset is not None:
        pairs = data.dataset_pairs(
            data.open_dataset(options.dataset, "val", artifact), options.pairs
        )
    if options.images is None:
        assert options.dataset is not None
        dataset = data.open_dataset(options.dataset, "train", artifact)
        crops = data.dataset_crops(dataset, artifact, options.count, progress)
    else:
        wanted = options.count if pairs else -(-options.count * HELD_OUT // (HELD_OUT - 1))
        crops = data.photo_crops(options.images, artifact, wanted, options.crop, progress)
    if pairs is not None:
        words = f"PSNR lost against the sharp images of {len(pairs.sharp)} pairs"
        return crops, pairs, words
    every = range(len(crops.images))
    judging = crops.take(every[HELD_OUT // 2 :: HELD_OUT] or every)
    calibrating = crops.take([n for n in every if n % HELD_OUT != HELD_OUT // 2] or every)
    judging = judging.take(data.evenly(len(judging.images), options.pairs))
    words = (
        f"PSNR that a network at {ASSUMED_PSNR:g} dB would lose, from the difference to the "
        f"float32 graph on {len(judging.images)} crops"
    )
    return calibrating, data.Pairs(judging.images, ()), words


def _grids(
    artifact: Artifact,
    model: onnx.ModelProto,
    places: Placement,
    crops: data.Crops,
    options: Calibration,
    progress: Progress,
) -> dict[str, Grid]:
    """Scales of all tensors that sites read, from histograms that are kept on disk."""
    names = read_tensors(model, places.sites)
    folder = options.cache or default_folder()
    cache = Cache.of(folder, artifact.sha256, crops.fingerprint, names)
    histograms, done = cache.load()
    total = len(crops.images)

    def step(number: int) -> None:
        progress(f"calibrating: image {number} of {total}")
        if number % SAVE_EVERY == 0 or number == total:
            cache.save(histograms, number)

    if done < total:
        observe(model, names, crops.images, histograms, done, step)
    symmetric = options.layout == "tensorrt"
    return {
        name: grid(limits(histograms[name], options.method, symmetric), options.layout)
        for name in names
    }


def _search(
    places: Placement,
    options: Calibration,
    score: Callable[[Collection[str]], Score],
    progress: Progress,
) -> tuple[tuple[Point, ...], dict[str, Score], tuple[Block, ...]]:
    """Points tried, blocks alone, blocks."""
    blocks = tuple(blocks_of(places.macs))
    if not blocks:
        raise CheckFailedError("the graph has no convolution that may become int8")
    known = dict[frozenset[str], Score]()

    def remembered(nodes: Collection[str]) -> Score:
        key = frozenset(nodes)
        if key not in known:
            known[key] = score(nodes)
        return known[key]

    progress("all blocks in int8")
    everything = remembered(list(places.macs))
    if everything.drop <= options.max_drop and not options.whole:
        share = sum(places.macs.values()) / max(places.total, 1)
        return (Point(tuple(block.name for block in blocks), share, everything),), {}, blocks
    alone = sensitivity(blocks, remembered, progress)
    points = []
    for point in ladder(blocks, alone, remembered, places.total, progress):
        points.append(point)
        if point.score.drop <= options.max_drop and not options.whole:
            break
    return tuple(points), alone, blocks
