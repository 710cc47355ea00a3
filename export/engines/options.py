"""Options of an engine build, and the image sizes for which an engine is built."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast, get_args

from deblur_export.engine_record import BuildFlags, Profile
from deblur_export.errors import DeblurExportError
from deblur_export.manifest import Manifest
from deblur_export.precision import LOW, EnginePrecision

Size = tuple[int, int]
Orientation = Literal["any", "landscape", "portrait"]
ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)

ENGINE = ".engine"  # the suffix of an engine
LARGEST_SIDE = 16384  # pixels, as of exported files
LARGEST_BATCH = 64
DEFAULT_SMALLEST: Size = (64, 64)
DEFAULT_TYPICAL: Size = (720, 1280)
DEFAULT_LARGEST: Size = (1440, 2560)


def precision_of(manifest: Manifest) -> EnginePrecision:
    """The precision of a file, like "int8+fp16"."""
    own, high = manifest.precision, manifest.high_precision
    return cast(EnginePrecision, own if high in (own, "fp32") else f"{own}+{high}")


def precision_from(int8: bool, **flags: bool) -> EnginePrecision | None:
    """The precision that the flags of the command line select; None without any flag.

    Args:
        int8: whether --int8 is given.
        flags: whether the flag of each low floating-point precision is given, by name.

    Raises:
        DeblurExportError: flags of two floating-point precisions.
    """
    floats = [name for name in LOW if flags[name]]
    if len(floats) > 1:
        raise DeblurExportError(f"--{floats[0]} and --{floats[1]} exclude each other")
    names = ["int8"] * int8 + floats
    return cast(EnginePrecision, "+".join(names)) if names else None


@dataclass(frozen=True)
class Sizes:
    """Image sizes (height, width) and batch sizes as the user gave them; None stands for the
    default.

    Attributes:
        smallest, typical, largest: sizes that the engine accepts, and the one that it is tuned for.
        batch: the smallest, typical and largest batch.
        orientation: of the images; for "any", both sides range up to the longer one of `largest`.
        fixed: the only size; without `smallest`, `typical`, `largest` and `orientation`.
    """

    smallest: Size | None = None
    typical: Size | None = None
    largest: Size | None = None
    batch: tuple[int, int, int] | None = None
    orientation: Orientation = "any"
    fixed: Size | None = None


@dataclass(frozen=True)
class BuildOptions:
    """How to build an engine.

    `workspace` is in GiB, None the builder's default. `compute_capabilities` ("8.9") are for
    TensorRT for RTX; `plugins`, `timing_cache` and both compatibilities for TensorRT. `half_io`
    makes input and output float16.
    """

    precision: EnginePrecision = "fp32"
    sizes: Sizes = field(default_factory=Sizes)
    plugins: tuple[Path, ...] = ()
    timing_cache: Path | None = None
    workspace: float | None = None
    tf32: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    compute_capabilities: tuple[str, ...] = ()
    half_io: bool = False

    def flags(self) -> BuildFlags:
        """The options that change the engine besides precision and sizes, for the manifest."""
        return BuildFlags(
            tf32=self.tf32,
            workspace_gib=self.workspace,
            version_compatible=self.version_compatible,
            hardware_compatible=self.hardware_compatible,
            compute_capabilities=self.compute_capabilities,
        )


def _parse_size(option: str, text: str | None) -> Size | None:
    """ "720x1280" -> (720, 1280), height first.

    Raises:
        DeblurExportError: not two sizes between 1 and 16384.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.lower(), re.ASCII)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(1 <= side <= LARGEST_SIDE for side in size):
        raise DeblurExportError(
            f"{option} '{text}' is not HEIGHTxWIDTH with sides of 1 to {LARGEST_SIDE} pixels, "
            "like 720x1280"
        )
    return size


def _parse_batch(text: str | None) -> tuple[int, int, int] | None:
    """ "1,2,8" -> (1, 2, 8): smallest, typical and largest batch; "4" is all three.

    Raises:
        DeblurExportError: neither one nor three ascending numbers between 1 and 64.
    """
    if text is None:
        return None
    parts = text.split(",")
    if all(re.fullmatch(r"\d{1,4}", part, re.ASCII) for part in parts) and len(parts) in (1, 3):
        low, typical, high = map(int, parts * 3 if len(parts) == 1 else parts)
        if 1 <= low <= typical <= high <= LARGEST_BATCH:
            return low, typical, high
    raise DeblurExportError(
        f"--batch '{text}' is not MIN,OPT,MAX: ascending numbers from 1 to {LARGEST_BATCH}, "
        "like 1,1,4"
    )


def parse_sizes(
    smallest: str | None,
    typical: str | None,
    largest: str | None,
    batch: str | None,
    orientation: Orientation = "any",
    fixed: str | None = None,
) -> Sizes:
    """Parse the values of --min, --opt, --max, --batch and --size.

    Raises:
        DeblurExportError: one of them cannot be read.
    """
    return Sizes(
        _parse_size("--min", smallest),
        _parse_size("--opt", typical),
        _parse_size("--max", largest),
        _parse_batch(batch),
        orientation,
        _parse_size("--size", fixed),
    )


def parse_capabilities(text: str | None) -> tuple[str, ...]:
    """ "8.9,12.0" -> ("8.9", "12.0")."""
    return tuple(part.strip() for part in text.split(",")) if text else ()


def profile_for(input_shape: Sequence[int | str], sizes: Sizes) -> Profile | None:
    """The optimization profile (NCHW shapes) of an engine; None if the file has a fixed shape.

    Photos come in portrait and landscape orientation. For "any", both height and width therefore
    range from the shorter side of the smallest size to the longer side of the largest.

    Raises:
        DeblurExportError: sizes for a file of fixed shape, sizes that do not ascend, or that
            contradict each other.
    """
    if all(isinstance(extent, int) for extent in input_shape):
        if sizes != Sizes():
            shape = "x".join(map(str, input_shape))
            raise DeblurExportError(
                f"the file accepts {shape} only, so that --min, --opt, --max, --size, "
                "--orientation and --batch do not apply; export it without --shape"
            )
        return None
    few, some, many = _batches(input_shape, sizes)
    channels = int(input_shape[1])
    if sizes.fixed is not None:
        if replace(sizes, fixed=None, batch=None) != Sizes():
            raise DeblurExportError(
                "--size is the only size; leave --min, --opt, --max and --orientation out"
            )
        return Profile(*((n, channels, *sizes.fixed) for n in (few, some, many)))
    smallest, largest = _smallest(sizes), _largest(sizes)
    low, high = _turned(smallest, sizes, min), _turned(largest, sizes, max)
    if not all(a <= b for a, b in zip(low, high, strict=True)):
        raise DeblurExportError(f"--min {_text(smallest)} is larger than --max {_text(largest)}")
    typical = sizes.typical or _typical(sizes, low, high)
    if not all(a <= side <= b for a, side, b in zip(low, typical, high, strict=True)):
        height, width = (f"{a} to {b}" for a, b in zip(low, high, strict=True))
        raise DeblurExportError(
            f"--opt {_text(typical)} does not lie between --min and --max: its height must be from "
            f"{height}, its width from {width}"
        )
    return Profile((few, channels, *low), (some, channels, *typical), (many, channels, *high))


def _batches(input_shape: Sequence[int | str], sizes: Sizes) -> tuple[int, int, int]:
    """The smallest, typical and largest batch."""
    own = input_shape[0]
    if isinstance(own, str):
        return sizes.batch or (1, 1, 1)
    if sizes.batch not in (None, (own, own, own)):
        raise DeblurExportError(f"the file takes batches of {own} only; leave --batch out")
    return own, own, own


def sizes_text(profile: Profile | None, sizes: Sizes) -> list[str]:
    """A line that says which sizes an engine accepts; none for a file of fixed shape."""
    if profile is None:
        return []
    low, typical, high = (
        "x".join(map(str, shape)) for shape in (profile.smallest, profile.typical, profile.largest)
    )
    if sizes.fixed is not None:
        return [f"accepts {_text(sizes.fixed)} only"]
    kind = "portrait or landscape" if sizes.orientation == "any" else f"{sizes.orientation} only"
    return [f"accepts {low} to {high}, {kind}, tuned for {typical}"]


def _turned(size: Size, sizes: Sizes, extreme: Callable[[Size], int]) -> Size:
    """A limit for images of the orientation: the shorter side first for landscape, or the `extreme`
    side twice for any."""
    if sizes.orientation == "any":
        return extreme(size), extreme(size)
    short, long = sorted(size)
    return (short, long) if sizes.orientation == "landscape" else (long, short)


def _typical(sizes: Sizes, low: Size, high: Size) -> Size:
    """The largest size if that was given, else the default, between the limits."""
    height, width = sizes.largest or DEFAULT_TYPICAL
    if sizes.orientation != "any":
        height, width = _turned((height, width), sizes, min)
    return (
        min(max(height, low[0]), high[0]),
        min(max(width, low[1]), high[1]),
    )


def _smallest(sizes: Sizes) -> Size:
    """As given, else the default or a smaller size that was given."""
    given = [size for size in (sizes.typical, sizes.largest) if size]
    return sizes.smallest or min([DEFAULT_SMALLEST, *given], key=min)


def _largest(sizes: Sizes) -> Size:
    """As given, else the default or a larger size that was given."""
    given = [size for size in (sizes.typical, sizes.smallest) if size]
    return sizes.largest or max([DEFAULT_LARGEST, *given], key=max)


def _text(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
