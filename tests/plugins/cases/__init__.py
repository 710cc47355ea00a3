"""The case table of all custom ops: CASES of every file here, and of these the NATIVE ones."""

from __future__ import annotations

import importlib
import pkgutil

from deblur_export.plugins.ops import OPS
from tests.plugins.harness import Case

CASES: list[Case] = [
    case
    for module in sorted(found.name for found in pkgutil.iter_modules(__path__))
    for case in importlib.import_module(f"{__name__}.{module}").CASES
]
NATIVE = [case for case in CASES if OPS[case.op].cpu is not None]
