"""A network of a user through the verbs, and what a file must not do."""

from __future__ import annotations

import importlib
import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deblur_export.artifact import read_artifact, sidecar_path
from deblur_export.cli import cli
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.manifest_blocks import Fact
from deblur_export.models.foreign.locate import GROUP
from deblur_export.models.loading import choice_of, recorded_model
from tests.models.foreign import networks

FILE = str(Path(networks.__file__))
BGR = f"{FILE}:Tanh --arg width=5 --range -1,1 --colour BGR --padding zeros --multiple 4"


def run(arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments.split(), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("own") / "net.onnx"
    run(f"onnx --model {BGR} --weights random:2 -o {path}")
    return path


def test_the_manifest_says_where_the_network_is_from(exported: Path) -> None:
    manifest = read_artifact(exported).manifest
    assert manifest.model.origin == "callable" and manifest.model.where == f"{FILE}:Tanh"
    assert manifest.model.arguments == {"width": 5}
    assert manifest.title == "tanh" and manifest.model.source == FILE
    assert manifest.facts["range"] == Fact((-1.0, 1.0), "given")
    assert manifest.facts["scale"] == Fact(1, "found")
    assert manifest.free == ("batch", "height", "width")
    assert manifest.input.range == (0.0, 1.0) and manifest.input.multiple == 4


def test_verify_with_the_network_named_again(exported: Path) -> None:
    assert "PASS" in run(f"verify {exported} --model {FILE}:Tanh")


def test_verify_with_another_network_of_these_weights(exported: Path) -> None:
    arguments = ["verify", str(exported), "--model", f"{FILE}:Plain"]
    with pytest.raises(CheckFailedError, match="first layer that diverges: net"):
        CliRunner().invoke(cli, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("verify {file}", "name it again with --model {where}, since a file must not decide"),
        ("bench {file}", "name it again with --model {where}"),
        ("verify {file} --model nafnet", "net.onnx is of {where}; name that"),
        ("verify {file} --model {where} --weights random:3", "not the weights"),
        ("onnx --model {where} --variant tiny", "--variant and --local are for the networks of"),
        ("onnx --model nafnet --scale 2", "are for networks of your own"),
        ("onnx --model {where} --weights demo", "demo: no such file; the weights of Tanh are"),
        ("onnx --model {path}:half", "weight is float16; return the network in float32"),
        ("onnx --model {path}:Twice --shape 1x4x8x8", "fails on an image of 1x4x8x8"),
        ("inspect", "name a network"),
        ("inspect --model {path}:Labels", "no image of the same channels"),
        ("inspect --model {where} --channels 2", "2 is none of 1, 3, 4"),
        ("onnx --model {where} --arg width={{3}}", "the argument width is {{3}}, which a manifest"),
        ("inspect --model {where} --range 1,-1", "the first must be the smaller"),
    ],
)
def test_refused(
    exported: Path, arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"file": exported, "where": f"{FILE}:Tanh", "path": FILE}
    done = CliRunner().invoke(cli, arguments.format(**names).split())
    refused = isinstance(done.exception, DeblurExportError)
    assert done.exit_code == (1 if refused else 2)  # `cli.main` makes it a 2
    said = str(done.exception) if refused else done.output
    assert message.format(**names) in said
    assert not list(tmp_path.iterdir())


def test_no_verb_imports_what_a_file_names(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither with the manifest beside the file nor with the one inside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "trap_of_a_file.py"
    module.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n", encoding="utf-8")
    text = sidecar_path(exported).read_text(encoding="utf-8")
    for where in (f"{module}:Net", "trap_of_a_file:Net"):
        document = json.loads(text) | {}
        document["model"] |= {"where": where, "origin": "callable"}
        file = tmp_path / "net.onnx"
        file.write_bytes(exported.read_bytes())
        sidecar_path(file).write_text(json.dumps(document), encoding="utf-8")
        for verb in ("verify", "bench", "run", "calibrate", "ranges", "trt"):
            done = CliRunner().invoke(cli, [verb, str(file)])
            assert done.exit_code or verb in ("run", "doctor", "trt")
    assert not (tmp_path / "ran").exists()


def test_facts_that_describe_no_network(exported: Path) -> None:
    manifest = read_artifact(exported).manifest
    wrong: list[dict[str, Any]] = [
        {"multiple": Fact("four", "given")},
        {"channels": Fact(7, "given")},
        {"range": Fact(3, "given")},
        {"padding": Fact(None, "given")},
        {"padding": Fact("mirror", "given")},
        {"range": Fact([1, 1], "given")},
        {"colour": Fact("CMYK", "given")},
        {"output": Fact(-1, "given")},
    ]
    for facts in wrong:
        other = manifest.derived(facts={**manifest.facts, **facts})
        with pytest.raises(DeblurExportError, match="its facts do not describe a network"):
            recorded_model(other, "net.onnx", model=f"{FILE}:Tanh")


def test_the_same_network_in_another_process(exported: Path) -> None:
    model = recorded_model(read_artifact(exported).manifest, "net.onnx", model=f"{FILE}:Tanh")
    assert choice_of(model).load().sha256 == model.sha256


def test_an_installed_package_offers_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point = EntryPoint("theirs", f"{networks.__name__}:Plain", GROUP)
    locate = importlib.import_module("deblur_export.models.foreign.locate")
    monkeypatch.setattr(locate, "entry_points", lambda group: [point])
    path = tmp_path / "net.onnx"
    run(f"onnx --model theirs --weights random:1 -o {path}")
    manifest = read_artifact(path).manifest
    assert (manifest.model.origin, manifest.model.where) == ("plugin", "theirs")
    assert "PASS" in run(f"verify {path}")
