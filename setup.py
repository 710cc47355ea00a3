"""Builds the native kernels into the package where there is a C++ compiler; never fails."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

PLUGINS = Path("src/deblur_export/plugins")
native = runpy.run_path(str(PLUGINS / "compile" / "cpu.py"))


class BuildWithNative(build_py):
    """Python files, then the libraries beside their loaders."""

    def run(self) -> None:
        super().run()
        root = Path("src" if self.editable_mode else self.build_lib)
        folder = root / "deblur_export" / "plugins" / "libraries"
        folder = folder.resolve() if self.editable_mode else folder.absolute()
        target, extension = folder / native["LIBRARY"], folder / native["EXTENSION"]
        if not self.editable_mode:
            for earlier in (target, extension):
                earlier.unlink(missing_ok=True)
        try:
            reason = native["build"](PLUGINS.resolve() / "csrc", target, extension)
        except native["BuildError"] as error:
            print(f"native kernels not built, PyTorch does their work: {error}", file=sys.stderr)
            return
        if reason is not None:
            print(f"native ops for OpenVINO not built: {reason}", file=sys.stderr)


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
