"""Why a network could not be captured, in one line that points into the user's code."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

import torch

from deblur_export.shown import shown

TORCH = str(Path(torch.__file__).parent)
OWN = str(Path(__file__).parent)
GUARD = re.compile(r"eval ((?:Eq|Ne)\(.*\)) \[guard added\]")
SIZE = re.compile(r"\b\w+(?:\['\w+'\])?\.size\(\)\[(\d)\]")
AXES = {"0": "batch", "2": "height", "3": "width"}


class GuardPlaces(logging.Handler):
    """While it is entered, notes where in the user's code sizes were compared.

    torch tells each guard to its log when it adds it, and the user's line is on the stack then.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.places: dict[str, str] = {}
        self.logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")

    def emit(self, record: logging.LogRecord) -> None:
        found = GUARD.search(record.getMessage())
        if found:
            place = _place(sys._getframe())
            if place:
                self.places.setdefault(found[1], place)

    def __enter__(self) -> None:
        self.before = (self.logger.level, self.logger.propagate, self.logger.handlers[:])
        self.logger.handlers[:] = [self]
        self.logger.propagate = False
        self.logger.setLevel(logging.INFO)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        level, self.logger.propagate, self.logger.handlers[:] = self.before
        self.logger.setLevel(level)

    def decisive(self, value: str = r"\d+") -> str | None:
        """Where a size, or what was computed from it, was found to be this number; or else where
        a size was found to be other than 1."""
        for pattern in (rf"Eq\(.*, {value}\)", r"Ne\(s\d+, 1\)"):
            for guard, place in self.places.items():
                if re.fullmatch(pattern, guard):
                    return place
        return None


Places = Callable[[], GuardPlaces]


def reason_of(error: Exception, places: Places) -> str:
    """One line: what the code demands, and the file and line that demand it."""
    text = str(error)
    guard = re.search(r"Guard failed: (.+)", text)
    if guard:
        number = re.search(r" == (\d+)$", guard[1])
        return _with_place(
            "the code computes with Python numbers that hold for some sizes only: "
            f"{_named(guard[1])}",
            places().decisive(number[1] if number else r"\d+"),
        )
    needs = re.findall(
        r"(?:satisfy the generated guard|resulted in a specialized value of) (.+)", text
    )
    if needs:
        return _with_place(f"the code needs {_named(needs[0].rstrip('.'))}", places().decisive())
    if type(error).__name__ == "GuardOnDataDependentSymNode":
        return _with_place(
            "the code decides by values of the image, not by its size", _place_of(error)
        )
    line = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return _with_place(f"{type(error).__name__}: {shown(line.strip())}", _place_of(error))


def _named(guard: str) -> str:
    """A guard in terms of batch, height and width."""
    return shown(SIZE.sub(lambda found: AXES.get(found[1], found[0]), guard))


def _with_place(reason: str, place: str | None) -> str:
    return f"{reason}, at {place}" if place else reason


def _place(frame: FrameType | None) -> str | None:
    """The innermost line of a stack that belongs neither to torch nor to this folder."""
    while frame is not None:
        if _is_users(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def _place_of(error: Exception) -> str | None:
    raised = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_users(frame.filename)
    ]
    return raised[-1] if raised else None


def _is_users(file: str) -> bool:
    return (
        not file.startswith((TORCH, OWN, "<", str(Path(logging.__file__).parent)))
        and "site-packages" not in file
    )
