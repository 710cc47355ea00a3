"""The networks that are measured: exported files with their PyTorch networks, or networks by
name."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from deblur_export.artifact import Artifact, read_artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.parity.onnx_reference import original
from deblur_export.export.parity.verify import reference_model
from deblur_export.export.timing.coverage import mask_shape
from deblur_export.export.timing.jobs import Original
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.models.loading import NetworkChoice, choice_of

# Ops of the domain deblur for which plugins/csrc has a kernel.
NATIVE = {
    "selective_scan",
    "motion_deform_conv",
    "deform_conv2d",
    "deform_conv2d_at",
    "pruned_conv",
}
Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True)
class Subject:
    """One network, or the original of adopted files. Without `files`, it is exported for the
    measurement. `native` says whether it
    has ops with native kernels, `decision` which value is its mask, `notes` which weights of its
    checkpoint were taken."""

    title: str
    network: NetworkChoice | Original
    native: bool
    decision: str | None
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    channels: int = 3

    def mask_shape(self, size: Size) -> Size:
        """Height and width in pixels of its mask for an image of `size`."""
        assert self.decision is not None and isinstance(self.network, NetworkChoice)
        return mask_shape(self.network.load().net, self.decision, *size)


def from_files(
    files: Iterable[Path],
    weights: str | None,
    ema: bool | None = None,
    model: str | None = None,
) -> tuple[list[Subject], list[Size]]:
    """One subject for all files of the same network, and the sizes of the files of fixed size.

    Args:
        files: exported files.
        weights, ema, model: as of `reference_model`.

    Raises:
        DeblurExportError: a file was not written by this package, has a batch size above 1, its
            weights are missing, or two files have different fixed sizes.
    """
    subjects: dict[NetworkChoice | Original, Subject] = {}
    sizes: dict[Size, Path] = {}
    for file in files:
        artifact = read_artifact(file)
        size = _fixed_size(artifact)
        if size is not None:
            sizes[size] = file
        if artifact.manifest.model.origin == "onnx":
            if (weights, ema, model) != (None, None, None):
                raise DeblurExportError(
                    f"{file}: adopted from an ONNX file, and has no network or weights besides"
                )
            subject = _adopted(artifact)
        else:
            subject = _subject(reference_model(artifact, weights, ema, model))
        known = subjects.setdefault(subject.network, subject)
        if file in known.files:
            raise DeblurExportError(f"{file}: named twice")
        subjects[subject.network] = replace(known, files=(*known.files, file))
    if len(sizes) > 1:
        first, second = list(sizes.values())[:2]
        raise DeblurExportError(f"{first} and {second} are made for different sizes: bench one")
    return list(subjects.values()), list(sizes)


def _adopted(artifact: Artifact) -> Subject:
    """The original of an adopted file.

    Raises:
        DeblurExportError: it is not where it was, or has changed.
    """
    reference = original(artifact)
    network = Original(reference.file.sha256, str(artifact.path))
    return Subject(
        reference.name,
        network,
        native=False,
        decision=None,
        notes=reference.notes,
        channels=artifact.manifest.input.channels,
    )


def from_choice(choice: NetworkChoice) -> Subject:
    """A network by name, with the demo weights if there are any, otherwise with random ones.

    Raises:
        DeblurExportError: there is no such network or variant, or the weights do not fit.
    """
    return _subject(choice.load())


def check_coverage(subjects: Sequence[Subject]) -> None:
    """Check that a network has a mask.

    Raises:
        DeblurExportError: no network has one.
    """
    if all(subject.decision is None for subject in subjects):
        titles = ", ".join(subject.title for subject in subjects)
        raise DeblurExportError(f"--coverage: {titles} has no mask that could be forced")


def _subject(model: LoadedModel) -> Subject:
    native = bool(_custom_ops(model) & NATIVE)
    return Subject(
        model.title,
        choice_of(model),
        native,
        model.spec.blur_mask,
        notes=model.notes,
        channels=model.images.channels,
    )


def _fixed_size(artifact: Artifact) -> Size | None:
    batch = artifact.manifest.input.batch
    if batch not in (None, 1):
        raise DeblurExportError(
            f"{artifact.path}: made for {batch} images at a time; bench runs one"
        )
    return artifact.manifest.input.size


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the names of the ops of the domain deblur that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = func.name().partition("::")
        if namespace == "deblur":
            self.names.add(name)
        return func(*args, **(kwargs or {}))


def _custom_ops(model: LoadedModel) -> set[str]:
    side = 4 * model.images.multiple
    shell: nn.Module = copy.deepcopy(model.net).to("meta")
    recorder = _Recorder()
    with torch.no_grad(), recorder:
        shell(torch.empty(1, model.images.channels, side, side, device="meta"))
    return recorder.names
