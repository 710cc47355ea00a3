"""Which of the installed clients load a file, for `doctor FILE` and `onnx --inline`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.table import Column, Table

from deblur_export.artifact import ModelFile
from deblur_export.commands.findings import mark
from deblur_export.engine_file import is_engine
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines import registry as builders
from deblur_export.export.runtimes.loading import try_file
from deblur_export.export.runtimes.probe import Finding, installed
from deblur_export.export.runtimes.registry import backends
from deblur_export.file_names import is_file

PARSE = """
import sys
from pathlib import Path
from deblur_export.artifact import ModelFile
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines import nvinfer
from deblur_export.export.engines.options import BuildOptions
from deblur_export.export.engines.registry import ENTRIES
from deblur_export.export.runtimes.nvinfer_log import message_log
path = Path(sys.argv[1])
try:
    trt = ENTRIES[sys.argv[2]].make(BuildOptions()).trt
    nvinfer.parse(trt, ModelFile(path).content, message_log(trt), str(path))
except DeblurExportError as error:
    sys.exit(str(error))
"""


def check_file(path: Path) -> None:
    """Check that a file can be tried.

    Raises:
        DeblurExportError: there is none, or it is neither ONNX nor an engine.
    """
    if not is_file(path):
        raise DeblurExportError(f"{path}: no such file; give an ONNX file or an engine")
    if not is_engine(path):
        _ = ModelFile(path).proto


def loading_findings(path: Path) -> Iterator[Finding]:
    """One finding for each installed client of ONNX files, or of engines."""
    for name, backend in backends():
        if backend.runs_engines == is_engine(path):
            yield from backend.loads(path, name)
    if not is_engine(path):
        yield from _parsers(path)


def _parsers(path: Path) -> Iterator[Finding]:
    for name, builder in builders.ENTRIES.items():
        if installed(builder.package):
            title = f"parser of {builder.package}"
            yield try_file(title, builder.package, PARSE, path, name)


def loading_table(path: Path) -> Table:
    """A table of the clients."""
    table = Table("client", "version", "loads", Column("why not", overflow="fold"), title=str(path))
    for finding in loading_findings(path):
        table.add_row(finding.name, finding.version, mark(finding.works), finding.note)
    return table


def loading_lines(path: Path) -> Iterator[str]:
    """The same as lines."""
    for finding in loading_findings(path):
        outcome = "loads" if finding.works else f"does not load: {finding.note}"
        yield f"  {finding.name} {finding.version}: {outcome}"
