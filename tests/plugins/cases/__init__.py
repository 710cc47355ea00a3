"""The case table of all custom ops: CASES of every file of this folder."""

from __future__ import annotations

import importlib
import pkgutil

from tests.plugins.harness import Case

CASES: list[Case] = [
    case
    for module in sorted(found.name for found in pkgutil.iter_modules(__path__))
    for case in importlib.import_module(f"{__name__}.{module}").CASES
]
