"""Find a user's network: `package.module:callable`, `path/file.py:Name` or the name of an entry
point.

Importing runs the user's code. It happens only for what was named on the command line or in a call;
what a manifest names is never imported.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from deblur_export.errors import DeblurExportError
from deblur_export.models.foreign.absent import stand_in, stood_in
from deblur_export.models.foreign.user_code import user_code
from deblur_export.models.foreign.user_files import import_file
from deblur_export.shown import shown

GROUP = "deblur_export.networks"
EXAMPLES = "package.module:callable or path/file.py:Name"


@dataclass(frozen=True)
class Located:
    """What a name leads to.

    Attributes:
        where: the name, a file as an absolute path.
        name: of the callable; the network is called after it.
        make: returns the network; or the network itself.
        source: the file in which it is defined, if there is one.
    """

    where: str
    name: str
    make: object
    source: Path | None

    @property
    def source_sha256(self) -> str | None:
        """SHA-256 of the source file."""
        if self.source is None:
            return None
        return hashlib.sha256(self.source.read_bytes()).hexdigest()

    def build(self, arguments: Mapping[str, Any], seed: int = 0) -> nn.Module:
        """The network that the callable returns; random initial values follow from the seed.

        Raises:
            DeblurExportError: it needs other arguments, raises, or returns something else.
        """
        if isinstance(self.make, nn.Module):
            if arguments:
                raise DeblurExportError(
                    f"{self.where} is a network already, which takes no --arg; name its class"
                )
            return self.make
        if not callable(self.make):
            raise DeblurExportError(
                f"{self.where} is a {type(self.make).__name__}, neither a callable nor a network"
            )
        _check_arguments(self.where, self.make, arguments)
        with (
            user_code(f"{self.where}: building the network failed"),
            torch.random.fork_rng(devices=[]),
        ):
            torch.manual_seed(seed)
            net = self.make(**arguments)
        if not isinstance(net, nn.Module):
            raise DeblurExportError(
                f"{self.where} returned a {type(net).__name__}, not a torch.nn.Module"
            )
        return net


def is_foreign(name: str) -> bool:
    """Whether a name is of the form of a callable: it has a colon that is no drive letter's, or is
    a Python file."""
    return ":" in name[2:] or name.endswith(".py")


def locate(name: str) -> Located:
    """Import what `name` names.

    Args:
        name: `package.module:callable` (the working folder is searched as well),
            `path/file.py:Name`, or an entry point of the group `deblur_export.networks`.

    Raises:
        DeblurExportError: there is no such file, module or callable, or importing it raises.
    """
    if not is_foreign(name):
        return _entry_point(name)
    place, colon, leaf = name.rpartition(":")
    if name.endswith(".py") and (not colon or len(place) <= 1):
        raise DeblurExportError(f"{shown(name)}: add the class or function, {shown(name)}:NAME")
    if not place or not leaf:
        raise DeblurExportError(f"{shown(name)}: give {EXAMPLES}")
    if place.endswith(".py") or "/" in place or "\\" in place:
        path = Path(place)
        if not path.is_file():
            raise DeblurExportError(f"{shown(place)}: no such file; give {EXAMPLES}")
        path = path.resolve()
        module: ModuleType = import_file(path)
        return Located(f"{path}:{leaf}", leaf.split(".")[-1], _attribute(module, leaf, place), path)
    return _of_module(name, place, leaf)


def entry_point_names() -> list[str]:
    """The names of the networks that installed packages offer."""
    return sorted(point.name for point in entry_points(group=GROUP))


def _of_module(name: str, place: str, leaf: str) -> Located:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = importlib.util.find_spec(place)
    except ModuleNotFoundError as error:
        if error.name is None or not place.startswith(error.name):
            raise DeblurExportError(f"{shown(name)}: {error}") from error
        found = None
    except (ImportError, ValueError) as error:
        raise DeblurExportError(f"{shown(name)}: {shown(str(error))}") from error
    except Exception:
        found = None  # a package above it fails; importing says where
        with user_code(f"importing {place} failed"):
            importlib.import_module(place)
    if found is None:
        raise DeblurExportError(
            f"{shown(name)}: there is no module {shown(place)}; give {EXAMPLES}, or run in the "
            "folder that holds it"
        )
    with user_code(f"importing {place} failed"):
        module = _imported(place)
    source = Path(module.__file__) if module.__file__ else None
    return Located(name, leaf.split(".")[-1], _attribute(module, leaf, place), source)


def _imported(place: str) -> ModuleType:
    """Import a module, with stand-ins for packages that are not installed."""
    while True:
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".")[0]
            if not package or package in stood_in() or package == place.split(".")[0]:
                raise
            stand_in(package)


def _entry_point(name: str) -> Located:
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        raise DeblurExportError(f"{shown(name)}: no installed package offers such a network")
    with user_code(f"loading {points[0].value} failed"):
        make = points[0].load()
    module = sys.modules.get(points[0].module)
    file = getattr(module, "__file__", None)
    return Located(name, name, make, Path(file) if file else None)


def _attribute(module: ModuleType, leaf: str, place: str) -> object:
    found: object = module
    for part in leaf.split("."):
        if not hasattr(found, part):
            having = [
                name
                for name, value in vars(module).items()
                if isinstance(value, type)
                and issubclass(value, nn.Module)
                and value.__module__ == module.__name__
            ]
            listed = ", ".join(having[:12]) + ", ..." * (len(having) > 12)
            raise DeblurExportError(
                f"{shown(place)} has no {shown(leaf)}"
                + (f"; its networks are: {listed}" if having else "")
            )
        found = getattr(found, part)
    return found


def _check_arguments(where: str, make: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Compare the arguments with the signature, before any code runs."""
    try:
        parameters = signature(make).parameters
    except (TypeError, ValueError):
        return  # a built-in without a signature; calling it tells
    kinds = {p.kind for p in parameters.values()}
    named = {
        name: p
        for name, p in parameters.items()
        if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    }
    missing = [n for n, p in named.items() if p.default is Parameter.empty and n not in arguments]
    missing += [
        n
        for n, p in parameters.items()
        if p.kind is Parameter.POSITIONAL_ONLY and p.default is Parameter.empty
    ]
    if missing:
        given = " ".join(f"--arg {name}=..." for name in missing)
        raise DeblurExportError(f"{where} needs arguments: {given}")
    strange = [name for name in arguments if name not in named]
    if strange and Parameter.VAR_KEYWORD not in kinds:
        raise DeblurExportError(
            f"{where} has no argument {', '.join(strange)}; it has: {', '.join(named) or 'none'}"
        )
