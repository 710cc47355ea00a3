"""Where, when and of what a report was made."""

from __future__ import annotations

import platform
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path

from deblur_export import __version__
from deblur_export.artifact import Artifact


def provenance(artifact: Artifact) -> dict[str, str]:
    """Date, host, command, versions, and the SHA-256 of file and weights, by their names on a
    page."""
    now = datetime.now(timezone.utc).astimezone()
    return {
        "Date": now.isoformat(sep=" ", timespec="seconds"),
        "Host": f"{platform.node()}, {platform.platform()}",
        "Command": command(sys.argv),
        "Version": f"deblur-export {__version__}, Python {platform.python_version()}",
        "SHA-256 of the file": artifact.sha256,
        "SHA-256 of the weights": artifact.manifest.weights.sha256,
    }


def command(arguments: list[str]) -> str:
    """The command line of a process, as one would type it in Bash."""
    program = Path(arguments[0])
    first = "deblur-export" if program.name == "__main__.py" else program.name
    return shlex.join([first, *arguments[1:]])
