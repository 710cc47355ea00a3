"""Which photos are restored, and where each result goes: all that can be wrong with the paths of
`deblur-export run` is found here, before a network is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deblur_export.errors import DeblurExportError
from deblur_export.image_formats import BY_SUFFIX, SUFFIXES
from deblur_export.outputs import check_outputs
from deblur_export.photo_folder import photos_in
from deblur_export.shown import shown

SHOWN = 3  # files that an error names; of the others it says how many there are
ADVICE = "choose another folder with -o, or restore them separately"


@dataclass(frozen=True)
class Job:
    """A photo, the file that its result is written to, and the file of its blur mask if one is
    asked for."""

    source: Path
    target: Path
    mask: Path | None


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """The files among `paths`, and the photos directly in the folders among them. A photo that is
    named twice counts once.

    Raises:
        DeblurExportError: a file or folder does not exist, or a folder has no photos.
    """
    named = list(paths)
    if missing := [path for path in named if not _exists(path)]:
        raise DeblurExportError(f"no such file or folder: {listed(missing)}")
    found = [photo for path in named for photo in (photos_in(path) if path.is_dir() else [path])]
    once: dict[Path, Path] = {}
    for photo in found:
        once.setdefault(photo.resolve(), photo)
    return list(once.values())


def plan_jobs(
    photos: Sequence[Path],
    folder: Path,
    suffix: str | None = None,
    *,
    mask: bool = False,
    overwrite: bool = False,
    quality: int | None = None,
    reads: Iterable[Path] = (),
) -> list[Job]:
    """The files that the results are written to: under the names of the photos, in `folder`.

    Args:
        photos: the photos, which exist.
        folder: of the results; it need not exist yet.
        suffix: of the results, without a dot; None keeps that of each photo.
        mask: whether blur masks are written too, as `NAME_mask.png`.
        overwrite: whether results that exist may be replaced.
        quality: of JPEG and WebP, if it was asked for.
        reads: other files that are read.

    Raises:
        DeblurExportError: a result has an unknown suffix or exists already, would replace a file
            that is read or another result, cannot be written, or none of them has a quality.
    """
    jobs = []
    for photo in photos:
        target = folder / (photo.name if suffix is None else f"{photo.stem}.{suffix}")
        jobs.append(Job(photo, target, mask_path(target) if mask else None))
    if unknown := [job.target for job in jobs if job.target.suffix.lower() not in BY_SUFFIX]:
        raise DeblurExportError(
            f"{listed(unknown)}: the results cannot be written under these names, which end in "
            f"none of {', '.join(SUFFIXES)}; choose one with --format"
        )
    if quality is not None and not any(BY_SUFFIX[j.target.suffix.lower()].lossy for j in jobs):
        raise DeblurExportError(
            "--quality is for JPEG and WebP, and no result is one: choose one with --format"
        )
    writes = [(f"the result of {job.source}", job.target) for job in jobs]
    masks = [(f"the mask of {job.source}", job.mask) for job in jobs if job.mask is not None]
    check_outputs([*writes, *masks], [*photos, *reads], ADVICE, makes_folders=True)
    existing = [path for _, path in (*writes, *masks) if path.exists()]
    if existing and not overwrite:
        raise DeblurExportError(
            f"{listed(existing)}: there already; choose another folder with -o, or replace with "
            "--overwrite"
        )
    return jobs


def check_target(target: Path, quality: int | None) -> None:
    """Check, before the work, that a result can have this name and quality.

    Raises:
        DeblurExportError: the suffix is unknown, or its format has no quality.
    """
    kind = BY_SUFFIX.get(target.suffix.lower())
    if kind is None:
        raise DeblurExportError(
            f"{target}: unknown suffix '{target.suffix}'; use one of {', '.join(SUFFIXES)}"
        )
    if quality is not None and not (kind.lossy and 1 <= quality <= 100):
        raise DeblurExportError(
            f"{target}: a quality of {quality} is not one of {kind.name}; it lies in 1..100 and is "
            "for JPEG and WebP"
        )


def mask_path(target: Path) -> Path:
    """`cat.jpg` -> `cat_mask.png`."""
    return target.with_name(f"{target.stem}_mask.png")


def listed(paths: Sequence[Path]) -> str:
    """The first paths, and how many others there are."""
    others = len(paths) - SHOWN
    names = ", ".join(map(shown, paths[:SHOWN]))
    return f"{names} and {others} more" if others > 0 else names


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False
