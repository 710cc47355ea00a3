"""The files of a training run: its state, from which it can continue, its log and its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError

STATE, LOG = "state.pt", "log.jsonl"
WEIGHTS = ("best", "last")


class Folder:
    """The folder of a run: state.pt, log.jsonl, best.safetensors and last.safetensors."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def files(self) -> list[tuple[str, Path]]:
        """What a run writes, for `outputs.check_outputs`."""
        weights = [(f"the {name} weights", self.path / f"{name}.safetensors") for name in WEIGHTS]
        return [("the state", self.path / STATE), ("the log", self.path / LOG), *weights]

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write state.pt."""
        with atomic_path(self.path / STATE) as temporary:
            torch.save(dict(state), temporary)

    def load_state(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """Read the state of an interrupted run with these arguments; None if there is none.

        Raises:
            DeblurExportError: the state is damaged, or belongs to a run with other arguments.
        """
        path = self.path / STATE
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            before = state["arguments"]
        except Exception as error:  # torch raises many types of errors for damaged files
            raise DeblurExportError(f"{path}: damaged; remove it to start anew") from error
        # Arguments that did not exist when the state was written had their default.
        other = [name for name in before if before[name] != arguments.get(name)]
        if other:
            changes = (f"{name} {before[name]} -> {arguments.get(name)}" for name in other)
            raise DeblurExportError(
                f"{self.path} holds a run with other arguments ({', '.join(changes)}); choose "
                "another folder, or continue with the same arguments"
            )
        return state

    def save_weights(
        self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]
    ) -> None:
        """Write NAME.safetensors, with `about` as JSON in its metadata. The same weights give the
        same bytes."""
        copies = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
        with atomic_path(self.path / f"{name}.safetensors") as temporary:
            # A single entry, because safetensors writes several in arbitrary order.
            metadata = {"training": json.dumps(dict(about))}
            temporary.write_bytes(save(copies, metadata))

    def holds(self, name: str) -> bool:
        """Whether NAME.safetensors exists."""
        return (self.path / f"{name}.safetensors").exists()

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line to log.jsonl."""
        with (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def entries(self) -> list[dict[str, Any]]:
        """The entries of log.jsonl, without a truncated last line."""
        path = self.path / LOG
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return found

    def forget_after(self, step: int) -> None:
        """Remove log entries of steps after `step`, which will be repeated."""
        remaining = [line for line in self.entries() if line["step"] <= step]
        with atomic_path(self.path / LOG) as temporary:
            temporary.write_text(
                "".join(json.dumps(line) + "\n" for line in remaining), encoding="utf-8"
            )
