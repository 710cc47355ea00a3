"""Links the folders into the package and builds the native kernels where there is a compiler."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PLUGINS = ROOT / "src/deblur_export/plugins"
links = runpy.run_path(str(ROOT / "links.py"))
try:
    links["make_links"](ROOT)
except links["LinkError"] as problem:
    sys.exit(f"error: {problem}")
native = runpy.run_path(str(PLUGINS / "compile/cpu.py"))


class BuildWithNative(build_py):
    """Python files, then the libraries beside their loaders; a missing compiler is no error."""

    def run(self) -> None:
        package = Path("src" if self.editable_mode else self.build_lib) / "deblur_export"
        if not self.editable_mode:
            # What an earlier build left there would go into the wheel, renamed modules too.
            shutil.rmtree(package, ignore_errors=True)
        super().run()
        folder = (package / "plugins/libraries").resolve()
        target, extension = folder / native["LIBRARY"], folder / native["EXTENSION"]
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
