"""The command line. Heavy imports stay inside each verb, so that --help is instant."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import click

from deblur_export import __version__
from deblur_export.commands.adopt import adopt
from deblur_export.commands.bench import bench
from deblur_export.commands.calibrate import calibrate
from deblur_export.commands.doctor import doctor
from deblur_export.commands.inspect import inspect_command
from deblur_export.commands.models import models
from deblur_export.commands.onnx import onnx_command
from deblur_export.commands.pairs import pairs
from deblur_export.commands.plugins import plugins
from deblur_export.commands.ranges import ranges
from deblur_export.commands.run import run
from deblur_export.commands.train import train
from deblur_export.commands.trt import trt
from deblur_export.commands.verify import verify
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.shown import shown
from deblur_export.temporary import remove_leftovers


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="deblur-export")
def cli() -> None:
    """Export trained image-deblurring networks to ONNX and check that they compute the same."""
    remove_leftovers(Path(tempfile.gettempdir()))


for verb in (
    onnx_command,
    adopt,
    calibrate,
    verify,
    run,
    ranges,
    trt,
    bench,
    pairs,
    train,
    models,
    inspect_command,
    doctor,
    plugins,
):
    cli.add_command(verb)


def main() -> NoReturn:
    """Entry point: 0 for success, 1 for a failed check, 2 for bad input or an interruption."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _write_any_text()
    try:
        code = cli(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.UsageError as error:
        verb = error.ctx.command_path if error.ctx else "deblur-export"
        _fail(f"{error.format_message()} (see {verb} --help)", 2)
    except CheckFailedError as error:
        _fail(str(error), 1)
    except DeblurExportError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; no unfinished file was left behind", 2)
    except MemoryError:
        _fail("out of memory; close other programs, or use --tile 512 with run", 2)
    except BrokenPipeError:
        sys.exit(2)
    except OSError as error:  # a name that is too long, a disk that fails
        if os.environ.get("DEBLUR_EXPORT_TRACEBACK"):
            raise
        where = f"{shown(error.filename)}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", 2)
    except Exception as error:
        if os.environ.get("DEBLUR_EXPORT_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {error}"
        _fail(f"internal error, {what} (DEBLUR_EXPORT_TRACEBACK=1 shows where)", 2)
    sys.exit(code or 0)


def _write_any_text() -> None:
    """Let characters that the code page of the terminal lacks be written as escapes (`\\u6a21`)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {shown(' '.join(message.split()), 2000)}", file=sys.stderr)
    sys.exit(code)
