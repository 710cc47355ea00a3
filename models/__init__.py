"""The networks, by name. Listing them imports neither torch nor any network."""

from __future__ import annotations

import difflib
import importlib

from deblur_export.errors import DeblurExportError
from deblur_export.models.spec import ModelSpec

NAMES = ("aibnet", "algnet", "dhnet", "m2aenet", "nafnet", "saphn", "ufpnet")


def get(name: str) -> ModelSpec:
    """The specification of the network called `name`.

    Raises:
        DeblurExportError: no such network; the message names the nearest one.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name.lower(), NAMES, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"known models: {', '.join(NAMES)}"
        raise DeblurExportError(f"unknown model '{name}'; {hint}")
    spec: ModelSpec = importlib.import_module(f"deblur_export.models.{name}").SPEC
    return spec
