"""Arguments of a network's constructor from the command line: name=literal."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from deblur_export.errors import DeblurExportError
from deblur_export.shown import shown

WORD = re.compile(r"[A-Za-z][\w./+-]*")
OTHER_SPELLINGS = {"true": "True", "false": "False", "none": "None", "null": "None"}


def read_arguments(texts: Iterable[str]) -> dict[str, Any]:
    """Arguments by name from texts like "dim=48", "num_blocks=[4,6,6,8]" or "norm=BiasFree".

    A value is a Python literal; a word that is none is taken as a string.

    Raises:
        DeblurExportError: a text is not name=literal, or a name comes twice.
    """
    arguments: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise DeblurExportError(f"--arg {shown(text)}: write NAME=VALUE, as in --arg dim=48")
        if name in arguments:
            raise DeblurExportError(f"--arg {name} is given twice")
        arguments[name] = _literal(name, value.strip())
    return arguments


def _literal(name: str, value: str) -> Any:
    if value.lower() in OTHER_SPELLINGS and value not in OTHER_SPELLINGS.values():
        raise DeblurExportError(
            f"--arg {name}={value}: write {OTHER_SPELLINGS[value.lower()]}, or "
            f"\"'{value}'\" for the text"
        )
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        if WORD.fullmatch(value):
            return value
        raise DeblurExportError(
            f"--arg {name}={shown(value)}: the value is no Python literal (48, 0.5, True, "
            "[4,6,6,8], 'text'); quote it for the shell if it has spaces"
        ) from error


def as_literal(arguments: Mapping[str, Any]) -> str:
    """Arguments as text of a Python literal.

    Raises:
        DeblurExportError: one is nothing that a manifest, which is JSON, can record.
    """
    for name, value in arguments.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise DeblurExportError(
                f"the argument {name} is {shown(repr(value), 60)}, which a manifest cannot record: "
                "give numbers, texts, lists of them, True, False or None, or a function that "
                "needs no such argument"
            ) from error
    return repr(dict(arguments))
