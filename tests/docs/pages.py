"""The Markdown pages of the repository: their code blocks, links, headings and inline code.

A comment on a line of its own directly before a block says how it is tested:

    <!-- not run: REASON -->   it is only read: its options and paths are still checked
    <!-- slow -->              it runs in the slow tier
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
MARK = re.compile(r"<!-- (?P<kind>not run|slow)(?:: (?P<reason>[^>]+?))? -->\s*\Z")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+)\)")
SPAN = re.compile(r"(?<!`)`(?P<text>[^`\n]+)`(?!`)")
HEADING = re.compile(r"^#{1,6} +(?P<title>.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block; `kind` is "run", "slow" or "not run"."""

    line: int
    language: str
    text: str
    kind: str
    reason: str

    @property
    def commands(self) -> list[str]:
        """Lines of the shell in the block, continued lines joined; none of other languages."""
        joined = self.text.replace("\\\n", " ")
        lines = [line.strip() for line in joined.splitlines()]
        if self.language == "console":
            return [line[2:] for line in lines if line.startswith("$ ")]
        if self.language == "yaml":
            return [line.split("run: ", 1)[1] for line in lines if "run: " in line]
        return lines if self.language == "bash" else []


@dataclass(frozen=True)
class Page:
    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The page without its blocks."""
        return FENCE.sub("", self.text)

    @cached_property
    def blocks(self) -> list[Block]:
        found = []
        for match in FENCE.finditer(self.text):
            before = self.text[: match.start()]
            mark = MARK.search(before)
            kind, reason = (mark["kind"], mark["reason"] or "") if mark else ("run", "")
            line = before.count("\n") + 1
            found.append(Block(line, match["language"], match["text"], kind, reason))
        return found

    @property
    def links(self) -> list[str]:
        return [match["target"] for match in LINK.finditer(SPAN.sub("", self.prose))]

    @property
    def spans(self) -> list[str]:
        return [match["text"] for match in SPAN.finditer(self.prose)]

    @property
    def anchors(self) -> set[str]:
        """What GitHub makes of the headings."""
        counts: Counter[str] = Counter()
        anchors = set()
        for match in HEADING.finditer(self.prose):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match["title"]).lower()
            slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            anchors.add(f"{slug}-{counts[slug]}" if counts[slug] else slug)
            counts[slug] += 1
        return anchors


def pages() -> list[Page]:
    """README and its like, everything below docs/, and the measurements."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "bench/README.md")]
    return [Page(path) for path in (*top, *sorted(ROOT.glob("docs/**/*.md"))) if path.is_file()]


def calls(line: str, program: str) -> Iterator[list[str]]:
    """The arguments of every call of a program in one line of the shell."""
    for part in re.split(r"&&|\|\||[|;]", line):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:  # a quoted string that the split above has cut
            continue
        while words and "=" in words[0]:
            del words[0]
        if words[:1] == [program]:
            yield words[1:]
