"""The networks by name. Listing the names imports neither torch nor any network."""

from __future__ import annotations

import difflib
import importlib

from deblur_export.errors import DeblurExportError
from deblur_export.models.spec import ModelSpec

NAMES = ("aibnet", "algnet", "dhnet", "m2aenet", "nafnet", "saphn", "ufpnet")


def get(name: str) -> ModelSpec:
    """Return the specification of the network called `name`, one of `NAMES`.

    Raises:
        DeblurExportError: there is no such network; the message suggests the closest name.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name.lower(), NAMES, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"known models: {', '.join(NAMES)}"
        raise DeblurExportError(f"unknown model '{name}'; {hint}")
    spec: ModelSpec = importlib.import_module(f"deblur_export.models.{name}").SPEC
    return spec
