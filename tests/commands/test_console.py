"""What is printed: hostile text commands nothing, and the steps of long work are seen in a log."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deblur_export.commands import console as module
from deblur_export.commands.console import counted, make_console, steps

CLEAR, TITLE = "\x1b[2J", "\x1b]0;mine\x07"
HOSTILE = f"a{CLEAR}{TITLE}[red]\u202e:smile:\x9b31m"
HARMLESS = r"a\x1b[2J\x1b]0;mine\x07[red]\u202e:smile:\x9b31m"


def log(width: int = 200) -> Console:
    return make_console(file=io.StringIO(), width=width)


def terminal() -> Console:
    return make_console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("make", [log, terminal])
def test_hostile_text_is_printed_and_not_obeyed(make: type[Console]) -> None:
    console = make()
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    for what in (HOSTILE, table):
        console.print(what)
    assert printed(console).count(HARMLESS) == 3
    console.print(Text(HOSTILE))
    assert not set(printed(console)) & {"\x1b", "\x07", "\x9b", "\u202e"}


def test_a_hostile_step_in_a_terminal() -> None:
    """Only rich's own sequences, for the cursor and the line, are there."""
    console = terminal()
    with steps(console, "[/none]") as tell:
        tell(HOSTILE)
        time.sleep(0.2)
    with counted(console, HOSTILE, 2) as advance:
        advance()
    text = printed(console)
    assert HARMLESS in text
    assert CLEAR not in text and TITLE not in text and "\x9b" not in text


def test_steps_that_last_are_lines_of_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LASTING", 0.05)
    console = log()
    with steps(console, "short") as tell:
        for number in range(100):
            tell(f"short {number}")
        tell("long")
        time.sleep(0.2)
        tell("the last")
    lines = printed(console).splitlines()
    assert [line.partition("] ")[2] for line in lines] == ["long"]
    assert lines[0].startswith("[   0.")


def test_a_long_loop_of_short_steps_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr(module.time, "monotonic", clock)
    console = log()
    with counted(console, "pairs", 40) as advance:
        for _ in range(40):
            advance()
    numbers = [line.partition("pairs: ")[2] for line in printed(console).splitlines()]
    assert 3 <= len(numbers) <= 4
    assert all(number.endswith(" of 40") for number in numbers)


def test_the_package_prints_through_this_console_alone() -> None:
    """No second one that obeys, no spinner or bar that reads markup from the name of a file."""
    root = Path(__file__).parents[2]
    folders = ("src/deblur_export", "plugins", "models", "export", "calibration")
    for file in (file for folder in folders for file in (root / folder).rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"(?<!Safe)\bConsole\(\w*[=)]", text), file
        bars = len(re.findall(r"\bTextColumn\(", text))
        assert bars == text.count('TextColumn("{task.description}", markup=False)'), file
        assert ".status(" not in text or file.name == "console.py", file


def test_nothing_is_printed_about_a_short_time() -> None:
    console = log()
    with steps(console, "loading"):
        pass
    time.sleep(0.01)
    assert printed(console) == ""
