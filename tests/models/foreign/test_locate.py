"""Networks of users are found by name, or a line says why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from deblur_export.errors import DeblurExportError
from deblur_export.models.foreign.arguments import read_arguments
from deblur_export.models.foreign.locate import is_foreign, locate
from tests.models.foreign import networks

MODULE = "tests.models.foreign.networks"
FILE = str(Path(networks.__file__))


@pytest.fixture(autouse=True)
def _search_path() -> Iterator[None]:
    before, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.parametrize("place", [MODULE, FILE])
def test_class_function_and_network(place: str) -> None:
    assert locate(f"{place}:Plain").build({"width": 5}).first.out_channels == 5
    assert len(locate(f"{place}:make").build({"width": 2, "deep": True})) == 2
    assert locate(f"{place}:READY").build({}).first.out_channels == 3
    found = locate(f"{place}:make")
    assert found.name == "make" and found.source is not None
    assert found.source_sha256 is not None and len(found.source_sha256) == 64


def test_initial_values_follow_from_the_seed() -> None:
    found = locate(f"{MODULE}:Plain")
    weights = [found.build({}, seed).first.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        ("nafnet", False),
        ("a.b:c", True),
        ("net.py", True),
        ("net.py:Net", True),
        (r"C:\nets\net.py:Net", True),
    ],
)
def test_names_of_callables(name: str, foreign: bool) -> None:
    assert is_foreign(name) == foreign


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (f"{MODULE}:Absent", {}, r"has no Absent; its networks are: Plain, Strided"),
        (f"{MODULE}x:make", {}, "there is no module tests.models.foreign.networksx"),
        ("absent/net.py:Net", {}, "absent/net.py: no such file"),
        (FILE, {}, "add the class or function"),
        ("a.b:", {}, "give package.module:callable"),
        ("somewhere", {}, "no installed package offers such a network"),
        (f"{MODULE}:make", {}, "needs arguments: --arg width=..."),
        (f"{MODULE}:Plain", {"depth": 3}, "has no argument depth; it has: width, channels"),
        (f"{MODULE}:READY", {"width": 3}, "is a network already"),
        (f"{MODULE}:number", {}, r"returned a int, not a torch.nn.Module"),
        (f"{MODULE}:FILE", {}, "has no FILE"),
        (f"{MODULE}:fails", {}, r"RuntimeError: the licence server is away \(.*networks.py:\d+\)"),
    ],
)
def test_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DeblurExportError, match=message) as raised:
        locate(name).build(arguments)
    assert "\n" not in str(raised.value)


def test_a_drive_letter_is_no_separator() -> None:
    with pytest.raises(DeblurExportError, match=r"C:\\nets\\net.py: no such file"):
        locate(r"C:\nets\net.py:Net")
    with pytest.raises(DeblurExportError, match="add the class or function"):
        locate(r"C:\nets\net.py")


def test_syntax_error_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import torch\ndef f(:\n", encoding="utf-8")
    with pytest.raises(DeblurExportError, match=r"broken.py:2: syntax error"):
        locate(f"{tmp_path / 'broken.py'}:f")


def test_a_file_of_a_repository_is_imported_as_the_repository_does(tmp_path: Path) -> None:
    """Relative, absolute from the root, from its own folder; packages that only training needs are
    not installed, and no __init__ is run for a relative import."""
    archs = tmp_path / "repo" / "archs"
    archs.mkdir(parents=True)
    (archs / "__init__.py").write_text("raise RuntimeError('trains')\n", encoding="utf-8")
    (archs / "near.py").write_text("from ..blocks_of_repo import W\nNEAR = 1\n", encoding="utf-8")
    (archs / "beside_it.py").write_text("BESIDE = 2\n", encoding="utf-8")
    (tmp_path / "repo" / "blocks_of_repo.py").write_text("W = 3\n", encoding="utf-8")
    (archs / "net.py").write_text(
        "import lmdb_absent\nfrom cv_absent.io import imread\nfrom cv_absent import Base\n"
        "from torch import nn\n"
        "from .near import NEAR\nimport beside_it\nfrom blocks_of_repo import W\n"
        "class Reader(Base):\n    pass\n"
        "class Net(nn.Conv2d):\n"
        "    def __init__(self):\n        super().__init__(NEAR, beside_it.BESIDE, W)\n"
        "class Reads(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        imread('x')\n"
        "class Derives(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        Reader()\n",
        encoding="utf-8",
    )
    net = locate(f"{archs / 'net.py'}:Net").build({})
    assert tuple(net.weight.shape) == (2, 1, 3, 3)
    for name in ("Reads", "Derives"):
        with pytest.raises(DeblurExportError, match=r"No module named 'cv_absent'.*install cv_abs"):
            locate(f"{archs / 'net.py'}:{name}").build({})


def test_a_module_that_imports_something_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_nets_here.py").write_text(
        "import absent_package\nfrom torch import nn\ndef make():\n    return nn.Identity()\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    assert type(locate("my_nets_here:make").build({})).__name__ == "Identity"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("dim=48", 48),
        ("num_blocks=[4,6,6,8]", [4, 6, 6, 8]),
        ("bias=False", False),
        ("norm=BiasFree", "BiasFree"),
        ("norm='True'", "True"),
        ("size=(8, 8)", (8, 8)),
        ("path=a/b.yml", "a/b.yml"),
        ("act=None", None),
    ],
)
def test_arguments(text: str, value: Any) -> None:
    assert read_arguments([text]) == {text.split("=")[0]: value}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["dim"], "write NAME=VALUE"),
        (["1a=2"], "write NAME=VALUE"),
        (["a=1", "a=2"], "given twice"),
        (["a=true"], "write True"),
        (["a=[1,"], "no Python literal"),
        (["a=__import__('os').getcwd()"], "no Python literal"),
    ],
)
def test_arguments_refused(texts: list[str], message: str) -> None:
    with pytest.raises(DeblurExportError, match=message):
        read_arguments(texts)
