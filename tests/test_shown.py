"""Text from outside cannot command a terminal, hide, or flood it."""

import pytest

from deblur_export.shown import shown


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("encoder.weight", "encoder.weight"),
        ("größe 模型", "größe 模型"),
        ("\x1b[2Ja", "\\x1b[2Ja"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("abc\u202etxt", "abc\\u202etxt"),
        ("\ud800", "\\ud800"),
        ("\x9b31m", "\\x9b31m"),
        (7, "7"),
    ],
)
def test_shown(text: object, line: str) -> None:
    assert shown(text) == line


def test_long_text_is_cut() -> None:
    line = shown("a" * 5_000_000 + "end", limit=40)
    assert line.startswith("a" * 20 + "…(4999973 characters)…") and line.endswith("end")
    assert len(shown("\x1b" * 10_000)) < 1000


def test_short_text_is_whole() -> None:
    assert shown("a" * 200) == "a" * 200
