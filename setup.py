"""Builds the native CPU kernels into the package where there is a C++ compiler; never fails."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

PLUGINS = Path("src/deblur_export/plugins")
native = runpy.run_path(str(PLUGINS / "native_build.py"))


class BuildWithNative(build_py):
    """Python files, then the library beside native.py."""

    def run(self) -> None:
        super().run()
        root = Path("src" if self.editable_mode else self.build_lib)
        target = root / "deblur_export" / "plugins" / native["LIBRARY"]
        if self.editable_mode:
            target = target.parent.resolve() / target.name
        try:
            native["build"](PLUGINS.resolve() / "csrc", target.absolute())
        except native["BuildError"] as error:
            if not self.editable_mode:
                target.unlink(missing_ok=True)  # of an earlier build
            print(f"native kernels not built, PyTorch does their work: {error}", file=sys.stderr)


class PlatformWheel(bdist_wheel):
    """The library makes the wheel one of this platform, for any Python 3."""

    def finalize_options(self) -> None:
        super().finalize_options()
        try:
            native["compiler"]()
        except native["BuildError"]:
            return
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        tag: tuple[str, str, str] = super().get_tag()
        return tag if self.root_is_pure else ("py3", "none", tag[2])


setup(cmdclass={"build_py": BuildWithNative, "bdist_wheel": PlatformWheel})
