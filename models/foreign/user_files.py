"""Import a Python file of a user that may be part of a package whose `__init__` is not wanted.

Research repositories keep a network in a file that imports its neighbours, in one of three ways:
relatively (`from .blocks import x`), from the file's folder (`import blocks`), or from the root of
the repository (`from models.blocks import x`). All three work here, and no `__init__` of the
repository is run for the first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from deblur_export.models.foreign.absent import stand_in
from deblur_export.models.foreign.user_code import user_code

LEVELS_UP = 5  # folders above the file that imports may reach


def import_file(path: Path) -> ModuleType:
    """Import the file at an absolute path.

    A folder above it that holds a module that is missing is put on the search path. For packages
    that are nowhere there are stand-ins, see `absent`.

    Raises:
        DeblurExportError: its code raises; the message has the file and the line.
    """
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    name, tried = _inside_packages(path), set[str]()
    with user_code(f"importing {path} failed"):
        while True:
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except ModuleNotFoundError as error:
                del sys.modules[name]
                package = (error.name or "").split(".")[0]
                if not package or package in tried:
                    raise
                root = _root_with(path, package)
                if root in (None, *sys.path):
                    tried.add(package)
                    stand_in(package)
                else:
                    sys.path.insert(0, str(root))
                importlib.invalidate_caches()
            except BaseException:
                del sys.modules[name]
                raise
            else:
                return module


def _root_with(path: Path, name: str) -> str | None:
    """The closest folder above the file that holds the module or package `name`."""
    for folder in list(path.parents)[1 : 1 + LEVELS_UP]:
        if (folder / f"{name}.py").is_file() or (folder / name).is_dir():
            return str(folder)
    return None


def _inside_packages(path: Path) -> str:
    """The name of the module inside empty packages for the folders above it, so that relative
    imports reach them; their `__init__` is not run."""
    folders = list(path.parents)[:LEVELS_UP]
    outermost = f"_user_{hashlib.sha256(str(folders[-1]).encode()).hexdigest()[:12]}"
    names = [outermost, *(folder.name.replace(".", "_") for folder in reversed(folders[:-1]))]
    for depth, folder in enumerate(reversed(folders), 1):
        package = ModuleType(".".join(names[:depth]))
        package.__path__ = [str(folder)]
        sys.modules.setdefault(package.__name__, package)
    return ".".join([*names, path.stem.replace(".", "_")])
