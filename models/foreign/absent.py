"""Empty modules in place of packages that a user's file imports and that are not installed.

Research code imports at its top what only training needs. Such a package is stood in for by a
module whose names can be imported, handed on and derived from; whoever calls one gets the
ModuleNotFoundError that the import would have raised. So nothing is computed otherwise. A few names
that networks call work nevertheless, see `stand_ins`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from deblur_export.models.foreign.stand_ins import contents


def stand_in(package: str) -> None:
    """Let `package` and its submodules be imported as empty modules."""
    _FINDER.packages.add(package)
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)


def stood_in() -> tuple[str, ...]:
    """The packages that are stood in for."""
    return tuple(sorted(_FINDER.packages))


@contextmanager
def stand_in_for(modules: Iterable[str]) -> Iterator[None]:
    """Within this context these modules are empty ones, also if one that fails is installed."""
    kept = {name: sys.modules.get(name) for name in modules}
    sys.modules.update({name: _AbsentModule(name) for name in kept})
    try:
        yield
    finally:
        for name, module in kept.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


class _Absent:
    """A name of a package that is not installed."""

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise _missing(self.__name__)

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        name = self.__name__

        def refuse(cls: type, *args: Any, **kwargs: Any) -> NoReturn:
            raise _missing(name)

        return (type(name.rpartition(".")[2], (), {"__new__": refuse}),)


class _AbsentModule(ModuleType):
    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")


class _Finder(MetaPathFinder, Loader):
    def __init__(self) -> None:
        self.packages: set[str] = set()

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self.packages:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Put in what works without the package."""
        module.__dict__.update(contents(module.__name__))


_FINDER = _Finder()


def _missing(name: str) -> ModuleNotFoundError:
    package = name.partition(".")[0]
    return ModuleNotFoundError(
        f"No module named '{package}', of which {name} is used", name=package
    )
