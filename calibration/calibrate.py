"""Calibrate an exported float32 file to int8: collect ranges, search within the budget, verify."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from deblur_export.artifact import Artifact
from deblur_export.calibration import images as data
from deblur_export.calibration.cache import Cache, default_folder
from deblur_export.calibration.calibrators import Method, clipping_range
from deblur_export.calibration.metadata import precision_map, scales
from deblur_export.calibration.observe import observe
from deblur_export.calibration.placement import Placement, placement
from deblur_export.calibration.qdq import (
    Layout,
    QuantizationParameters,
    quantization_parameters,
    quantized,
    quantized_tensors,
)
from deblur_export.calibration.scoring import ASSUMED_PSNR, Evaluator
from deblur_export.calibration.search import (
    Block,
    Point,
    Score,
    blocks_of,
    mixed_precision_search,
    sensitivity,
)
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.graph import graph_of
from deblur_export.export.precision.derived import require_float32
from deblur_export.export.to_onnx import save
from deblur_export.manifest_blocks import CalibrationRecord
from deblur_export.photo_folder import photos_in

Progress = Callable[[str], None]
SAVE_EVERY = 8  # images
MAX_DROP = 0.1  # dB
HELD_OUT = 4  # one of so many photo crops is for evaluation, the others are for calibration


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
    """The result of a calibration.

    Attributes:
        artifact: the int8 file.
        chosen: the graph that it contains.
        points: all graphs that were measured.
        alone: the score of each block alone in int8, by name; empty if it was not needed.
        blocks: the quantizable blocks.
        total: multiply-adds of all convolutions and products.
        measure: in words, what the loss of PSNR is.
        left_out: photos that could not be read, one line each.
    """

    artifact: Artifact
    chosen: Point
    points: tuple[Point, ...]
    alone: Mapping[str, Score]
    blocks: tuple[Block, ...]
    total: int
    measure: str
    left_out: tuple[str, ...] = ()


def int8_path(artifact: Artifact) -> Path:
    """The default file name, `net_int8.onnx` for `net.onnx`."""
    return artifact.path.with_name(f"{artifact.path.stem}_int8.onnx")


def calibrate(
    artifact: Artifact, options: Calibration, path: Path, progress: Progress = lambda step: None
) -> Calibrated:
    """Write the int8 form of a file: every quantizable block is int8, except those that must stay
    float32 to keep the loss of PSNR within the budget.

    Args:
        artifact: a float32 file.
        options: of the calibration.
        path: the .onnx file to write.
        progress: called with a line of text for each step.

    Raises:
        DeblurExportError: the file is not float32, there are no images, or the output cannot be
            written.
        CheckFailedError: no block is within the budget, or the graph fails its precision check.
    """
    model = _float32_model(artifact, path)
    left_out: list[str] = []
    crops, pairs, measure = _images(artifact, options, progress, left_out)
    placed = placement(model)
    if not placed.nodes:
        raise CheckFailedError(
            f"{artifact.path}: none of its convolutions and products can be in int8 without its "
            "image or its result losing digits; use --precision fp16"
        )
    parameters = _parameters(artifact, model, placed, crops, options, progress)

    def graph(names: Collection[str]) -> onnx.ModelProto:
        chosen = [node for node in placed.nodes if node.name in names]
        return quantized(model, chosen, parameters, options.layout)

    progress("running the float32 graph")
    evaluator = Evaluator(model, pairs.blurred, pairs.sharp or None)
    points, alone, blocks = _search(
        placed, options, lambda nodes: evaluator.score(graph(nodes)), progress
    )
    fit = [point for point in points if point.score.drop <= options.max_drop]
    if not fit:
        best = min(points, key=lambda point: point.score.drop)
        raise CheckFailedError(
            f"no block of {artifact.path} is within {options.max_drop:g} dB in int8: "
            f"{' '.join(best.blocks)} alone loses {best.score.drop:.3f} dB; allow more with "
            "--max-psnr-drop, or try another --method"
        )
    chosen = max(fit, key=lambda point: point.fraction)
    nodes = {node for block in blocks if block.name in chosen.blocks for node in block.nodes}
    progress("checking and writing")
    final = graph(nodes)
    record = CalibrationRecord(
        method=options.method,
        layout=options.layout,
        images=crops.names,
        images_sha256=crops.fingerprint,
        scales=scales(final, parameters),
        max_psnr_drop=options.max_drop if math.isfinite(options.max_drop) else None,
        psnr_drop=round(chosen.score.drop, 4),
        psnr_drop_means=measure,
    )
    manifest = artifact.manifest.derived(
        precision="int8",
        precision_map=precision_map(final, placed, nodes),
        calibration=record,
    )
    written = save(graph_of(final), path, manifest)
    return Calibrated(
        written, chosen, points, alone, blocks, placed.total, measure, tuple(left_out)
    )


def _float32_model(artifact: Artifact, path: Path) -> onnx.ModelProto:
    require_float32(artifact, "int8")
    check_output(path)
    return artifact.proto


def check_output(path: Path) -> None:
    """Raise DeblurExportError if `path` cannot be the path of an .onnx file."""
    if path.suffix != ".onnx":
        raise DeblurExportError(f"{path}: the output must end in .onnx")
    if not path.parent.is_dir():
        raise DeblurExportError(f"{path.parent}: no such folder; create it first")


def check_sources(options: Calibration) -> None:
    """Raise DeblurExportError if there are no images to calibrate on."""
    if options.dataset is None and options.images is None:
        raise DeblurExportError("int8 needs images to calibrate on; give --images or --dataset")
    if options.images is not None:
        photos_in(options.images)


def _images(
    artifact: Artifact, options: Calibration, progress: Progress, left_out: list[str]
) -> tuple[data.Crops, data.Pairs, str]:
    """Images for calibration, images for evaluation, and a description of the loss of PSNR.
    `left_out` receives a line for each photo that cannot be read."""
    check_sources(options)
    pairs = None
    if options.dataset is not None:
        pairs = data.dataset_pairs(
            data.open_dataset(options.dataset, "val", artifact),
            options.pairs,
            artifact.manifest.input.channels,
        )
    if options.images is None:
        assert options.dataset is not None
        dataset = data.open_dataset(options.dataset, "train", artifact)
        crops = data.dataset_crops(dataset, artifact, options.count, progress)
    else:
        wanted = options.count if pairs else -(-options.count * HELD_OUT // (HELD_OUT - 1))
        crops = data.photo_crops(
            options.images, artifact, wanted, options.crop, progress, leave_out=left_out.append
        )
    if pairs is not None:
        measure = f"loss of PSNR against the sharp images of {len(pairs.sharp)} pairs"
        return crops, pairs, measure
    every = range(len(crops.images))
    held_out = crops.take(every[HELD_OUT // 2 :: HELD_OUT] or every)
    calibrating = crops.take([n for n in every if n % HELD_OUT != HELD_OUT // 2] or every)
    held_out = held_out.take(data.evenly(len(held_out.images), options.pairs))
    measure = (
        f"loss of PSNR of a network that reaches {ASSUMED_PSNR:g} dB, estimated from the "
        f"difference to the float32 graph on {len(held_out.images)} crops"
    )
    return calibrating, data.Pairs(held_out.images, ()), measure


def _parameters(
    artifact: Artifact,
    model: onnx.ModelProto,
    placed: Placement,
    crops: data.Crops,
    options: Calibration,
    progress: Progress,
) -> dict[str, QuantizationParameters]:
    """Quantization parameters of all quantized activations, from histograms that are cached."""
    names = quantized_tensors(model, placed.nodes)
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
        name: quantization_parameters(
            clipping_range(histograms[name], options.method, symmetric), options.layout
        )
        for name in names
    }


def _search(
    placed: Placement,
    options: Calibration,
    score: Callable[[Collection[str]], Score],
    progress: Progress,
) -> tuple[tuple[Point, ...], dict[str, Score], tuple[Block, ...]]:
    """The measured graphs, the scores of blocks alone, and the blocks."""
    blocks = tuple(blocks_of(placed.macs))
    if not blocks:
        raise CheckFailedError("the graph has no convolution that can be int8")
    known = dict[frozenset[str], Score]()

    def remembered(nodes: Collection[str]) -> Score:
        key = frozenset(nodes)
        if key not in known:
            known[key] = score(nodes)
        return known[key]

    progress("all blocks in int8")
    everything = remembered(list(placed.macs))
    if everything.drop <= options.max_drop and not options.whole:
        fraction = sum(placed.macs.values()) / max(placed.total, 1)
        return (Point(tuple(block.name for block in blocks), fraction, everything),), {}, blocks
    alone = sensitivity(blocks, remembered, progress)
    points = []
    for point in mixed_precision_search(blocks, alone, remembered, placed.total, progress):
        points.append(point)
        if point.score.drop <= options.max_drop and not options.whole:
            break
    return tuple(points), alone, blocks
