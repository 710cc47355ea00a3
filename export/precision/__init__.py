"""Precision in the graph: strongly typed float16 and bfloat16, and its verification.

`typed.typed_artifact` converts a float32 file to a typed one; `check.check_precision` determines
the precision that a graph really computes in; `ranges.observe` measures the ranges of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deblur_export.errors import DeblurExportError
from deblur_export.precision import PRECISIONS

if TYPE_CHECKING:
    from deblur_export.export.precision.ranges import HeadroomRule
    from deblur_export.manifest import Manifest


def headroom_rule(
    precision: str,
    ranges: Path | None,
    images: Path | None,
    shape: Sequence[int | str],
    rescale: bool,
    progress: Callable[[str], None],
) -> HeadroomRule:
    """What is known of the ranges of a graph's tensors, from a file of ranges or from images.
    Without either, nothing is.

    Raises:
        DeblurExportError: both are given, the precision has no use for them, or a file cannot be
            read; also if the graph shall be rescaled and neither is given.
    """
    from deblur_export.export.images.cases import photo_cases
    from deblur_export.export.precision.ranges import (
        headrooms_by_file,
        headrooms_by_images,
        nothing_known,
    )

    narrow = PRECISIONS[precision].narrow
    if rescale and not narrow and precision != "fp32":
        raise DeblurExportError(f"--rescale is for fp16: {precision} has the range of float32")
    if ranges is None and images is None:
        if rescale:
            raise DeblurExportError(
                "--rescale needs --images or --ranges, to find the tensors that exceed float16"
            )
        return nothing_known
    if not narrow and not rescale:
        raise DeblurExportError(
            f"--ranges and --images are for --precision fp16: {precision} has the range of float32"
        )
    if images is None:
        assert ranges is not None
        return headrooms_by_file(ranges)
    if ranges is not None:
        raise DeblurExportError("give either --ranges or --images")
    cases = photo_cases(images, shape, leave_out=progress)
    return headrooms_by_images(cases, progress=progress)


def summary(manifest: Manifest) -> str:
    """One line that describes a file that is not float32."""
    metadata, calibration = manifest.precision_map, manifest.calibration
    assert metadata is not None, "a float32 file"
    nodes, conv = metadata.nodes, metadata.multiply_adds.conv
    if calibration is not None:
        return (
            f"int8: {conv:.1%} of the convolutions' multiply-adds, {nodes['int8']} nodes; "
            f"{calibration.psnr_drop:+.4f} dB, the {calibration.psnr_drop_means}"
        )
    weights = metadata.weights
    assert weights is not None
    return (
        f"{manifest.precision}: {conv:.1%} of the convolutions' multiply-adds, "
        f"{nodes[manifest.precision]} nodes; {nodes['fp32']} stay float32; of {weights.cast:,} "
        f"weights {weights.flushed_to_zero} became 0 and {weights.subnormal} lost digits"
    )
