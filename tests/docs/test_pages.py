"""Pages are read, not run: links, paths, options and languages of every block."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from deblur_export.cli import cli
from tests.docs.pages import ROOT, Page, calls, pages

PAGES = pages()
LANGUAGES = {"toml", "bash", "console", "python", "yaml", "text", "json", "cpp"}
LONGEST_README = 200
FOLDERS = (
    "bench",
    "calibration",
    "docs",
    "examples",
    "export",
    "models",
    "plugins",
    "src",
    "tests",
    ".github",
    ".ci",
)
PATH = re.compile(rf"^({'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*$")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def refusal(arguments: list[str], partial: bool = False) -> str | None:
    """Why the command line would not take these arguments, None if it would; in prose a required
    one may be left out."""
    command: click.Command = cli
    left = list(arguments)
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        name = left.pop(0)
        if name not in command.commands:
            return f"there is no verb '{name}'"
        command = command.commands[name]
    if isinstance(command, click.Group) and not left:
        return None
    try:
        command.make_context(command.name, left)
    except click.UsageError as error:
        # --photos without its value is a BadOptionUsage.
        unfinished = isinstance(error, click.MissingParameter | click.BadOptionUsage)
        return None if partial and unfinished else error.format_message()
    except click.exceptions.Exit:  # --help, --version
        return None
    return None


def options_of(command: click.Command) -> set[str]:
    own = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return own.union({"--help"}, *map(options_of, below))


def broken(page: Page, target: str) -> str | None:
    """Why a link leads nowhere, None if it leads somewhere or out of the repository."""
    if re.match(r"[a-z]+:", target):
        return None
    path, _, anchor = unquote(target).partition("#")
    file = (page.path.parent / path).resolve() if path else page.path
    if not file.exists():
        return f"{target}: there is no {path}"
    if anchor and anchor not in Page(file).anchors:
        return f"{target}: {file.name} has no heading #{anchor}"
    return None


@every_page
def test_links_lead_somewhere(page: Page) -> None:
    assert [problem for link in page.links if (problem := broken(page, link))] == []


@every_page
def test_named_paths_exist(page: Page) -> None:
    named = [span for span in page.spans if PATH.match(span)]
    assert [path for path in named if not list(ROOT.glob(path.rstrip("/")))] == []


@every_page
def test_every_block_says_its_language(page: Page) -> None:
    assert [block for block in page.blocks if block.language not in LANGUAGES] == []


@every_page
def test_what_is_not_run_says_why(page: Page) -> None:
    silent = [block for block in page.blocks if block.kind == "not run" and not block.reason]
    assert silent == []


@every_page
def test_commands_in_blocks_are_accepted(page: Page) -> None:
    lines = [command for block in page.blocks for command in block.commands]
    # A console block may show how a wrong option is refused.
    shown = {
        line
        for block in page.blocks
        if block.language == "console" and "error: " in block.text
        for line in block.commands
    }
    problems = [
        f"{line}: {problem}"
        for line in lines
        if line not in shown
        for arguments in calls(line, "deblur-export")
        if (problem := refusal(arguments))
    ]
    assert problems == []


@every_page
def test_commands_in_prose_are_accepted(page: Page) -> None:
    problems = [
        f"{span}: {problem}"
        for span in page.spans
        for arguments in calls(span, "deblur-export")
        if (problem := refusal(arguments, partial=True))
    ]
    assert problems == []


@every_page
def test_options_in_prose_exist(page: Page) -> None:
    known = options_of(cli)
    named = [span.split()[0] for span in page.spans if re.match(r"--\w|-\w\b(?!-)", span)]
    assert [option for option in named if option.split("=")[0] not in known] == []


@every_page
def test_scripts_know_their_options(page: Page) -> None:
    """Scripts of bench/ and examples/ parse their own options: each must be in their text."""
    lines = [command for block in page.blocks for command in block.commands] + page.spans
    problems = []
    for line in lines:
        for arguments in calls(line, "python"):
            script = next((ROOT / word for word in arguments if word.endswith(".py")), None)
            if script is None:
                continue
            if not script.is_file():
                problems.append(f"{line}: there is no such script")
                continue
            text = script.read_text(encoding="utf-8")
            options = [word.split("=")[0] for word in arguments if word.startswith("-")]
            problems += [f"{line}: {option}" for option in options if f'"{option}"' not in text]
    assert problems == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_every_page_is_linked() -> None:
    """From the README by way of other pages."""
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = Page(waiting.pop())
        if page.path in reached:
            continue
        reached.add(page.path)
        targets = (link.partition("#")[0] for link in page.links if not re.match(r"[a-z]+:", link))
        files = ((page.path.parent / target).resolve() for target in targets if target)
        waiting += [file for file in files if file.suffix == ".md"]
    assert [page.name for page in PAGES if page.path not in reached] == []


def test_stale_commands_are_found() -> None:
    assert refusal(["onnx", "--model", "nafnet", "-o", "net.onnx"]) is None
    assert refusal(["plugins", "build", "--cuda"]) is None
    assert "--colour" in str(refusal(["onnx", "--colour", "red"]))
    assert "no verb 'sharpen'" in str(refusal(["sharpen", "photo.jpg"]))
    assert "fp12" in str(refusal(["onnx", "--model", "nafnet", "--precision", "fp12"]))
    assert "FILE" in str(refusal(["verify"]))
    assert refusal(["verify"], partial=True) is None
    assert "--colour" in str(refusal(["verify", "--colour"], partial=True))


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = Page(tmp_path / "page.md")
    page.path.write_text(
        "# One: `two`\n[a](#one-two) [b](#three) [c](lost.md) [d](https://x.org)\n",
        encoding="utf-8",
    )
    assert [bool(broken(page, link)) for link in page.links] == [False, True, True, False]


def test_blocks_are_found(tmp_path: Path) -> None:
    page = Page(tmp_path / "page.md")
    page.path.write_text(
        "<!-- not run: needs a GPU -->\n```bash\na --b \\\n  c | deblur-export run x # y\n```\n"
        "<!-- slow -->\n\n```python\nimport a\n```\n```console\n$ d\nerror: e\n```\n",
        encoding="utf-8",
    )
    first, second, third = page.blocks
    assert (first.kind, first.reason, second.kind, third.kind) == (
        "not run",
        "needs a GPU",
        "slow",
        "run",
    )
    assert [list(calls(line, "deblur-export")) for line in first.commands] == [[["run", "x"]]]
    assert (second.commands, third.commands) == ([], ["d"])
