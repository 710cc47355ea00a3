"""Whether a client loads a file, each tried in a process of its own: some of them crash."""

from __future__ import annotations

from pathlib import Path

from deblur_export.export.runtimes.probe import Finding, installed, trial
from deblur_export.shown import shown

# As `run` and `verify` open it.
OPEN = """
import sys
from pathlib import Path
from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes.open import open_session
try:
    open_session(Path(sys.argv[1]), sys.argv[2])
except DeblurExportError as error:
    sys.exit(str(error))
"""


def try_file(client: str, package: str, code: str, path: Path, *arguments: str) -> Finding:
    """Try to load a file.

    Args:
        client: its name for users.
        package: the installed Python distribution that contains it.
        code: Python code that loads the file `sys.argv[1]` and fails with one line.
        path: the file.
        arguments: the rest of `sys.argv`.
    """
    works, lines = trial(code, str(path), *arguments)
    said = [line.strip() for line in lines if line.strip()] or ["it crashed"]
    why = "" if works else shown(said[-1].removeprefix(f"{path}: "))
    return Finding(client, installed(package), works, why)
