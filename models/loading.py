"""Load a network as the options of the verbs name it, or as a manifest records it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deblur_export import models
from deblur_export.engine_record import FixedShape
from deblur_export.errors import DeblurExportError
from deblur_export.file_names import is_file
from deblur_export.manifest import Manifest
from deblur_export.models.checkpoint import DEMO, RANDOM, LoadedModel, default_weights, load_model
from deblur_export.models.checkpoint.files import Checkpoint, read_checkpoint
from deblur_export.models.checkpoint.recognise import is_known
from deblur_export.models.foreign import OWN, load_foreign
from deblur_export.models.foreign.examine import Given, recorded
from deblur_export.models.foreign.locate import entry_point_names, is_foreign
from deblur_export.models.foreign.spandrel_source import load_spandrel
from deblur_export.shown import shown

Progress = Callable[[str], None]


@dataclass(frozen=True)
class NetworkChoice:
    """A network of this package or of a user.

    Attributes:
        name: of a network of this package, `package.module:callable`, `path/file.py:Name` or an
            entry point; None recognises a checkpoint by its keys.
        weights: a checkpoint, "demo", "random:SEED" or "own"; None for the default.
        variant, local, ema: as of `checkpoint.load_model`.
        arguments: of a user's callable, by name, as text of a Python literal.
        given: what is known of a user's network.
    """

    name: str | None
    weights: str | None = None
    variant: str | None = None
    local: bool = False
    ema: bool | None = None
    arguments: str = "{}"
    given: Given = field(default_factory=Given)

    @property
    def foreign(self) -> bool:
        """Whether it is a user's network."""
        name = self.name
        return (
            name is not None
            and name not in models.NAMES
            and (is_foreign(name) or name in entry_point_names())
        )

    def load(
        self, shape: FixedShape | None = None, progress: Progress = lambda step: None
    ) -> LoadedModel:
        """Build it and load its weights; a user's network is run to find out what is not given.

        Raises:
            DeblurExportError: it is not found or cannot be built, or the weights do not fit.
        """
        arguments: dict[str, Any] = ast.literal_eval(self.arguments)
        if self.foreign:
            assert self.name is not None
            if self.variant is not None or self.local:
                raise DeblurExportError(
                    "--variant and --local are for the networks of this package; a network of "
                    "your own takes --arg NAME=VALUE"
                )
            return load_foreign(
                self.name, self.weights, arguments, self.given, self.ema, shape, progress
            )
        if self.name is None and self.weights is not None and is_file(self.weights):
            checkpoint = read_checkpoint(Path(self.weights))
            if not is_known(checkpoint):
                return self._of_spandrel(checkpoint, arguments, shape, progress)
        if arguments or self.given != Given():
            raise DeblurExportError(
                "--arg and what describes a network are for networks of your own (--model "
                "package.module:callable or path/file.py:Name)"
            )
        source = self.weights or default_weights(self.name, self.variant)
        return load_model(self.name, self.variant, source, self.local, self.ema)

    def _of_spandrel(
        self,
        checkpoint: Checkpoint,
        arguments: dict[str, Any],
        shape: FixedShape | None,
        progress: Progress,
    ) -> LoadedModel:
        assert self.weights is not None
        if self.variant is not None or self.local or arguments:
            raise DeblurExportError(
                f"{self.weights}: --variant, --local and --arg need --model, and without it the "
                "weights are of no network of this package"
            )
        return load_spandrel(checkpoint, self.weights, self.given, self.ema, shape, progress)


def choice_of(model: LoadedModel) -> NetworkChoice:
    """How to load a network again, in another process for instance. What was found out is given."""
    if model.foreign is not None:
        return NetworkChoice(
            None if model.foreign.origin == "spandrel" else model.foreign.where,
            model.weights,
            ema=model.ema,
            arguments=repr(dict(model.arguments)),
            given=recorded(model.foreign.facts),
        )
    named = model.weights == DEMO or RANDOM.fullmatch(model.weights)
    variant = model.variant.removesuffix("-local") if named else None
    return NetworkChoice(
        model.spec.name, model.weights, variant, "train_size" in model.arguments, model.ema
    )


def recorded_model(
    manifest: Manifest,
    file: str,
    weights: str | None = None,
    ema: bool | None = None,
    model: str | None = None,
) -> LoadedModel:
    """Load the network from which a file was exported.

    Args:
        manifest: of the file.
        file: its name, for messages.
        weights: the checkpoint; None if it is where it was at the export.
        ema: which weights of a checkpoint with two sets; None takes those that were exported.
        model: the user's network, which is imported: a manifest cannot name code that is run.

    Raises:
        DeblurExportError: the network or the checkpoint is missing, or has other weights than the
            exported ones.
    """
    record = manifest.weights
    source = weights or record.source
    if source not in (DEMO, OWN) and not RANDOM.fullmatch(source) and not is_file(source):
        raise DeblurExportError(
            f"{source}: the weights of {file} are not there; pass --weights FILE"
        )
    ema = record.ema if ema is None else ema
    choice = _recorded_choice(manifest, file, source, ema, model)
    loaded = choice.load()
    if loaded.sha256 != record.sha256:
        again = (
            f"; {choice.name} gives other weights each time: seed it, or export with --weights"
            if source == OWN
            else ""
        )
        raise DeblurExportError(
            f"{source}: not the weights that {file} was exported from "
            f"(SHA-256 {loaded.sha256[:12]} instead of {record.sha256[:12]}){again}"
        )
    return loaded


def _recorded_choice(
    manifest: Manifest, file: str, source: str, ema: bool | None, model: str | None
) -> NetworkChoice:
    identity = manifest.model
    if identity.origin == "built-in":
        if model not in (None, identity.name):
            raise DeblurExportError(
                f"--model {shown(str(model))}: {file} is of {identity.name}, a network of this "
                "package; leave --model out"
            )
        named = source == DEMO or bool(RANDOM.fullmatch(source))
        variant = identity.variant.removesuffix("-local") if named else None
        local = "train_size" in identity.arguments
        return NetworkChoice(identity.name, source, variant, local, ema)
    where = shown(identity.where or identity.name)
    if identity.origin == "callable" and model is None:
        raise DeblurExportError(
            f"{file} is of {where}: name it again with --model {where}, since a file must not "
            "decide which code is run"
        )
    if identity.origin == "spandrel" and model is not None:
        raise DeblurExportError(
            f"--model {shown(model)}: {file} is of {where}, which spandrel recognises by its "
            "weights; leave --model out"
        )
    if model is not None and not NetworkChoice(model).foreign:
        raise DeblurExportError(
            f"--model {shown(model)}: {file} is of {where}; name that as package.module:callable "
            "or path/file.py:Name"
        )
    if identity.origin == "onnx":
        raise DeblurExportError(f"{file} is of {where}, an ONNX file, which has no PyTorch network")
    return NetworkChoice(
        None if identity.origin == "spandrel" else model or identity.where,
        source,
        ema=ema,
        arguments=repr(dict(identity.arguments)),
        given=_given(manifest, file),
    )


def _given(manifest: Manifest, file: str) -> Given:
    try:
        return recorded(dict(manifest.facts))
    except (KeyError, TypeError, ValueError) as error:
        raise DeblurExportError(
            f"{file}: not a manifest: its facts do not describe a network ({error}); export again"
        ) from error
