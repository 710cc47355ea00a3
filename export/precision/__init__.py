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
    from deblur_export.export.precision.typed import KeepRule
    from deblur_export.manifest import Manifest


def keep_rule(
    precision: str,
    ranges: Path | None,
    images: Path | None,
    shape: Sequence[int] | None,
    progress: Callable[[str], None],
) -> KeepRule:
    """The rule for values that stay in float32, from a file of ranges or from images. Without
    either, only the nodes of the policy stay.

    Raises:
        DeblurExportError: both are given, the precision has the range of float32, or a file cannot
            be read.
    """
    from deblur_export.export.images.cases import photo_cases
    from deblur_export.export.precision.ranges import keep_by_file, keep_by_images
    from deblur_export.export.precision.typed import keep_nothing

    if ranges is None and images is None:
        return keep_nothing
    if not PRECISIONS[precision].narrow:
        raise DeblurExportError(
            f"--ranges and --images are for --precision fp16: {precision} has the range of float32"
        )
    if images is None:
        assert ranges is not None
        return keep_by_file(ranges)
    if ranges is not None:
        raise DeblurExportError("give either --ranges or --images")
    cases = photo_cases(images, shape or ("batch", 3, "height", "width"))
    return keep_by_images(cases, progress=progress)


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
