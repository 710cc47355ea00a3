"""Text that came from outside, made fit for a terminal, a log and a page."""

from __future__ import annotations

import unicodedata

LIMIT = 200
# Controls (escape sequences), formats (bidirectional overrides), halves of surrogate pairs, and
# the two separators that end a line.
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def shown(text: object, limit: int = LIMIT) -> str:
    """`str(text)` in one printable line.

    Characters that a terminal would obey or hide are written as Python escapes (`\\x1b`), so a
    key of a checkpoint cannot clear the screen or turn the direction of the text. A text
    of more than `limit` characters loses its middle, and the line says how many characters.
    """
    line = str(text)
    if len(line) > limit:
        head, tail = limit // 2, limit // 4
        line = f"{line[:head]}…({len(line) - head - tail} characters)…{line[len(line) - tail :]}"
    return escaped(line)


def escaped(text: str) -> str:
    """`text`, whole, with Python escapes for the characters that `shown` escapes."""
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if unicodedata.category(char) in _ESCAPED
        else char
        for char in text
    )
