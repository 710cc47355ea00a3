"""Messages that docs/troubleshooting.md quotes in its prose are in the code.

Those in its blocks are printed and compared by test_docs.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import ROOT, Page
from tests.docs.test_contributing import code_files

PAGE = Page(ROOT / "docs/troubleshooting.md")
NOT_MESSAGES = ("deblur-export ", "--", "DEBLUR_EXPORT_")
# What differs from one message to the next: files, numbers, names of networks and precisions.
VARYING = re.compile(
    r"…|; |\S*\d\S*|\S+\.\w+|\bportable\b|TensorRT for RTX(?= cannot)|TensorRT(?= needs)"
)


def fragments(message: str) -> Iterator[str]:
    """The parts of a message that are always the same, of two words or more."""
    for part in VARYING.split(message):
        words = part.strip(" ,;:")
        if " " in words:
            yield words


@pytest.fixture(scope="module")
def code() -> str:
    """The source of the package, strings over several lines joined."""
    text = "\n".join(
        file.read_text(encoding="utf-8") for file in code_files() if file.suffix == ".py"
    )
    return re.sub(r"\"\s*\n\s*f?\"", "", text)


def test_quoted_messages_are_in_the_code(code: str) -> None:
    prose = re.sub(r"\n(?!\n)", " ", PAGE.prose)
    spans = re.findall(r"(?<!`)`([^`\n]+)`", prose)
    messages = [span for span in spans if " " in span and not span.startswith(NOT_MESSAGES)]
    assert len(messages) > 10
    assert [part for span in messages for part in fragments(span) if part not in code] == []


def test_fragments() -> None:
    message = "no block of net.onnx stays within 0.1 dB in int8 … try fp32"
    assert list(fragments(message)) == ["no block of", "stays within", "dB in"]
