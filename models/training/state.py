"""What a run needs to go on after an interruption, and what it leaves behind."""

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


class Folder:
    """The folder of a run: state.pt, log.jsonl, best.safetensors and last.safetensors."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write state.pt."""
        with atomic_path(self.path / STATE) as temporary:
            torch.save(dict(state), temporary)

    def load_state(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """The state of an interrupted run with these arguments, None where there is none.

        Raises:
            DeblurExportError: it is damaged, or of a run with other arguments.
        """
        path = self.path / STATE
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            before = state["arguments"]
        except Exception as error:  # torch raises whatever damaged bytes lead it to
            raise DeblurExportError(f"{path}: damaged; remove it to start anew") from error
        # An argument that the run did not know yet had its default.
        other = [name for name in before if before[name] != arguments.get(name)]
        if other:
            changes = (f"{name} {before[name]} -> {arguments.get(name)}" for name in other)
            raise DeblurExportError(
                f"{self.path} holds a run with other arguments ({', '.join(changes)}); take "
                "another folder, or go on with the same arguments"
            )
        return state

    def save_weights(
        self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]
    ) -> None:
        """Write NAME.safetensors, `about` as JSON in its metadata. The same weights make the same
        bytes."""
        copies = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
        with atomic_path(self.path / f"{name}.safetensors") as temporary:
            # One entry: safetensors writes several in any order.
            metadata = {"training": json.dumps(dict(about))}
            temporary.write_bytes(save(copies, metadata))

    def holds(self, name: str) -> bool:
        """Whether NAME.safetensors is there."""
        return (self.path / f"{name}.safetensors").exists()

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line to log.jsonl."""
        with (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def entries(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl; a last one that was cut off is left out."""
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
        """Drop what the log says about later steps, which will be done again."""
        kept = [line for line in self.entries() if line["step"] <= step]
        with atomic_path(self.path / LOG) as temporary:
            temporary.write_text(
                "".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8"
            )
