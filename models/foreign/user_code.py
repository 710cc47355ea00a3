"""Errors of the user's code in one line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import deblur_export
from deblur_export.errors import DeblurExportError
from deblur_export.shown import shown

TORCH, OURS = (f"{Path(file).parent}/" for file in (torch.__file__, deblur_export.__file__))


@contextmanager
def user_code(what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one line with its file and line number."""
    try:
        yield
    except DeblurExportError:
        raise
    except SyntaxError as error:
        raise DeblurExportError(
            f"{what}: {error.filename}:{error.lineno}: syntax error: {shown(error.msg)}"
        ) from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [f for f in frames if not f.filename.startswith((TORCH, OURS, "<"))]
        frame = (theirs or frames)[-1]
        said = shown(" ".join(str(error).split()))
        raise DeblurExportError(
            f"{what}: {type(error).__name__}{f': {said}' if said else ''} "
            f"({frame.filename}:{frame.lineno}){_advice(error)}"
        ) from error


def _advice(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"; install {shown(error.name.split('.')[0])}, or run where it can be imported"
    return ""
