"""Records (frozen dataclasses) from and to JSON. Reading is strict: every field is there, no other
is, and each value has the type that the dataclass declares."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

from deblur_export.shown import shown

T = TypeVar("T")
Place = tuple[str | int, ...]  # of a value in a document: names of fields and indices in lists
LARGEST_INT = 2**63 - 1
DEEPEST = 16  # levels of a value of type Any
LONGEST_NAME = 60  # characters of a field's name in messages
WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
}


class FieldError(ValueError):
    """A field is missing, unknown or of the wrong type; the message is one line that names it."""


def read_record(kind: type[T], value: object) -> T:
    """A record of the dataclass `kind` from what `json.loads` gives.

    Fields may be bool, int, float, str, None, Literal, Any (any JSON), other dataclasses, unions
    of these, tuples (a list in JSON) and Mapping[str, ...]. A field may be missing only where its
    default is None. A ValueError of `__post_init__` counts as a wrong value; its message begins
    with the name of the field.

    Raises:
        FieldError: the value is not such a record.
    """
    record: T = _record(kind, value, "")
    return record


def plain(value: Any) -> Any:
    """A record, or what one consists of, as `json.dumps` takes it; fields that are None by default
    and None are left out, and so are those that are `NOT_IN_JSON`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in _json_fields(value)
            if field.default is not None or getattr(value, field.name) is not None
        }
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    return value


def split_unknown(kind: Any, value: Any, place: Place = ()) -> tuple[Any, dict[Place, Any]]:
    """Take out of a JSON document for `kind` the fields that its records do not have.

    Returns:
        The rest, and what was taken out by its place.
    """
    unknown: dict[Place, Any] = {}

    def inner(kind: Any, value: Any, name: str | int) -> Any:
        rest, found = split_unknown(kind, value, (*place, name))
        unknown.update(found)
        return rest

    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        options = [option for option in arguments if dataclasses.is_dataclass(option)]
        return split_unknown(options[0], value, place) if len(options) == 1 else (value, {})
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        known = _fields(typing.cast(Any, kind))
        unknown.update({(*place, k): v for k, v in value.items() if k not in known})
        rest = {k: inner(known[k][0], v, k) for k, v in value.items() if k in known}
        return rest, unknown
    if origin is tuple and arguments[1:] == (Ellipsis,) and isinstance(value, (list, tuple)):
        return [inner(arguments[0], v, k) for k, v in enumerate(value)], unknown
    if len(arguments) == 2 and origin is not tuple and isinstance(value, Mapping):  # Mapping
        return {k: inner(arguments[1], v, k) for k, v in value.items()}, unknown
    return value, {}


def put_back(document: Any, unknown: Mapping[Place, Any]) -> None:
    """Undo `split_unknown`, in place; what belongs to a part that is gone is left out."""
    for place, value in unknown.items():
        parent = document
        for name in place[:-1]:
            try:
                parent = parent[name]
            except (KeyError, IndexError):
                parent = None
                break
        if parent is not None:
            parent[place[-1]] = value


def place_name(place: Place) -> str:
    """The name of a field in one short line, such as "passes[0].seed"."""
    path = ""
    for name in place:
        path = f"{path}[{name}]" if isinstance(name, int) else _join(path, name)
    return path


NOT_IN_JSON = {"json": False}  # `metadata` of a field that is not part of the document


def _json_fields(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.metadata.get("json", True)]


@functools.cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Type of each field of a dataclass, and whether it must be there."""
    hints = typing.get_type_hints(kind)
    return {
        field.name: (hints[field.name], field.default is not None) for field in _json_fields(kind)
    }


def _record(kind: Any, value: object, path: str) -> Any:
    given, known = _object(value, path), _fields(kind)
    for name in given:
        if name not in known:
            raise FieldError(f"{_join(path, name)} is unknown")
    for name, (_, needed) in known.items():
        if needed and name not in given:
            raise FieldError(f"{_join(path, name)} is missing")
    values = {name: _value(known[name][0], item, _join(path, name)) for name, item in given.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise FieldError(f"{path}.{error}" if path else str(error)) from error


def _value(kind: Any, value: object, path: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _anything(value, path, DEEPEST)
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, path)
    if origin in (Union, types.UnionType):
        return _union(arguments, value, path)
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
        raise FieldError(f"{path} is not one of {', '.join(map(str, arguments))}")
    if origin is tuple:
        return _tuple(arguments, value, path)
    if origin is not None:  # Mapping[str, ...]
        items = _object(value, path).items()
        return {name: _value(arguments[1], item, _join(path, name)) for name, item in items}
    return _scalar(kind, value, path)


def _union(options: tuple[Any, ...], value: object, path: str) -> Any:
    others = [option for option in options if option is not types.NoneType]
    if value is None and len(others) < len(options):
        return None
    if len(others) == 1:
        return _value(others[0], value, path)
    for option in others:
        try:
            return _value(option, value, path)
        except FieldError:
            continue
    raise FieldError(f"{path} has the wrong type or value")


def _tuple(kinds: tuple[Any, ...], value: object, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise FieldError(f"{path} is not a list")
    if kinds[1:] == (Ellipsis,):
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise FieldError(f"{path} is not a list of {len(kinds)}")
    pairs = zip(kinds, value, strict=True)
    return tuple(_value(kind, item, f"{path}[{i}]") for i, (kind, item) in enumerate(pairs))


def _scalar(kind: Any, value: object, path: str) -> Any:
    if kind is float and type(value) is int and abs(value) <= LARGEST_INT:
        return float(value)
    fits = type(value) is kind
    if isinstance(value, float):
        fits = fits and math.isfinite(value)
    if type(value) is int:
        fits = fits and abs(value) <= LARGEST_INT
    if not fits:
        raise FieldError(f"{path} is not {WORDS[kind]}")
    return value


def _anything(value: object, path: str, depth: int) -> Any:
    if depth == 0:
        raise FieldError(f"{path} is nested too deeply")
    if isinstance(value, Mapping):
        items = _object(value, path).items()
        return {name: _anything(item, _join(path, name), depth - 1) for name, item in items}
    if isinstance(value, (list, tuple)):
        return tuple(_anything(item, f"{path}[{i}]", depth - 1) for i, item in enumerate(value))
    if value is None:
        return None
    if type(value) not in WORDS:
        raise FieldError(f"{path} is nothing that JSON has")
    return _scalar(type(value), value, path)


def _object(value: object, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise FieldError(f"{path or 'the whole'} is not an object")
    return value


def _join(path: str, name: str) -> str:
    """The dotted name of a field; long and strange names are cut to one short line."""
    line = shown(name, LONGEST_NAME)
    return f"{path}.{line}" if path else line
