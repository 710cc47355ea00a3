"""`manifest.Manifest`: the same from JSON as it went in, and one line about anything else."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from deblur_export.artifact import METADATA_KEY, Artifact, read_artifact, sidecar_path
from deblur_export.engine_file import read_engine
from deblur_export.engine_record import (
    BuildFlags,
    Census,
    EngineCheck,
    EngineRecord,
    OtherFile,
    Profile,
)
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.cases import cases_for
from deblur_export.manifest import FORMAT, Manifest
from deblur_export.manifest_blocks import Fact, FileRecord, Model, ParityRecord, PassReport, Tile
from tests.conftest import Exported
from tests.manifests import in_precision, make_manifest
from tests.test_cli import Invoke, assert_refused, invoke, photo

__all__ = ["invoke"]  # a fixture
FIXED = (1, 3, 32, 48)
FOLD = PassReport("fold", ("a", "b"), (("c", "its reason"),), 9, 8, 70, 60, 1e-15)
PROFILE = Profile((1, 3, 64, 64), (1, 3, 720, 1280), (2, 3, 2560, 2560))


def engine(profile: Profile | None) -> EngineRecord:
    census = Census("layers", {"fp16": 70, "fp32": 6})
    return EngineRecord(
        onnx=OtherFile("net.onnx", "3" * 64),
        backend="TensorRT 10.9.0",
        version="10.9.0",
        profile=profile,
        flags=BuildFlags(False, 1.5, True, False, ("8.9", "12.0")),
        plugins=(OtherFile("lib.so", "4" * 64),),
        check=EngineCheck("int8+fp16", census, census if profile else None, ("one", "two")),
    )


FILE = FileRecord("5" * 64, 1234)
PARITY = ParityRecord("PyTorch", "ONNX Runtime", 4, 2.5e-6)
FOREIGN = Model(
    "callable", "mine", "custom", "nets:make", {"dim": 48, "bias": False}, "nets.py", "6" * 64
)
ALL = make_manifest(
    **in_precision("int8", "fp16"),
    model=FOREIGN,
    custom_ops=("PrunedConv", "SelectiveScan"),
    facts={"multiple": Fact(8, "found"), "range": Fact((0.0, 1.0), "assumed")},
    tile=Tile(45, 8, proved=True),
    passes=(FOLD, FOLD),
    engine=engine(PROFILE),
    file=FILE,
    parity=PARITY,
)
KINDS = {
    "fp32": make_manifest(),
    "fp32 as written": make_manifest(file=FILE, passes=(FOLD,)),
    "fp32 verified": make_manifest(file=FILE, parity=PARITY),
    "fixed shape": make_manifest(FIXED),
    "fp16": make_manifest(**in_precision("fp16")),
    "bf16": make_manifest(**in_precision("bf16")),
    "int8": make_manifest(**in_precision("int8"), file=FILE, parity=PARITY),
    "int8 for CPUs": make_manifest(**in_precision("int8", layout="cpu")),
    "int8 with fp16": make_manifest(**in_precision("int8", "fp16")),
    "engine": make_manifest(**in_precision("fp16"), engine=engine(PROFILE), file=FILE),
    "engine of fixed shape": make_manifest(FIXED, engine=engine(None), file=FILE),
    "foreign": make_manifest(model=FOREIGN),
    "everything": ALL,
}
# What JSON holds where names are not fields, and where any value may stand.
MAPPINGS = ("tools", "arguments", "facts", "nodes", "kept_fp32", "scales", "counts")
ANYTHING = ("value", "dim", "bias")
# Fields that must be there but may be null, and fields that may be missing or null.
NULLABLE = {"model.where", "model.source", "model.source_sha256", "tile.field", "engine.profile"}
NULLABLE |= {"engine.flags.workspace_gib", "engine.check.engine", "calibration.max_psnr_drop"}
BLOCKS = {"precision_map", "calibration", "engine", "file", "parity"}
OPTIONAL = BLOCKS | {
    f"precision_map.{around}{name}"
    for around in ("", "high_precision.")
    for name in ("weights", "int8_weights_sha256", "high_precision")
}
Where = tuple[str | int, ...]


def places(value: Any, where: Where = ()) -> Iterator[Where]:
    """Every place below the top of a JSON document."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, item in items:
        yield (*where, name)
        yield from places(item, (*where, name))


def dotted(where: Where) -> str:
    return ".".join(name for name in where if isinstance(name, str))


def at(document: Any, where: Where) -> Any:
    for name in where:
        document = document[name]
    return document


def changed(document: Any, where: Where, value: Any) -> Any:
    whole = copy.deepcopy(document)
    at(whole, where[:-1])[where[-1]] = value
    return whole


def refused(content: Any) -> str:
    """The message, which is one line and names the file."""
    with pytest.raises(DeblurExportError) as caught:
        Manifest.from_json(content, "net.onnx")
    message = str(caught.value)
    assert message.startswith("net.onnx: ") and "\n" not in message and len(message) < 2000
    assert message.endswith("; export again") or "or export again" in message
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_comes_back(kind: str) -> None:
    manifest = KINDS[kind]
    for content in (
        manifest.to_json(),
        manifest.to_json(indent=2),
        manifest.to_json().encode(),
        manifest.as_dict(),
    ):
        assert Manifest.from_json(content, "net.onnx") == manifest
    assert Manifest.from_json(manifest.to_json(), "x").to_json() == manifest.to_json()


def test_what_is_not_there_is_left_out() -> None:
    document = KINDS["fp32"].as_dict()
    assert document["format"] == FORMAT == 2
    assert not {"calibration", "engine", "file", "parity", "precision_map"} & set(document)
    assert document["model"]["where"] is None


def test_every_wrong_type_is_one_line_that_names_the_field() -> None:
    document = json.loads(ALL.to_json())
    wrong: tuple[Any, ...] = ({"strange": [[{}]]}, [[[{}]]], True, "strange", -7.5, 10**30, None)
    count = 0
    for where in places(document):
        if where[-1] in ANYTHING or "value" in where or where == ("format",):
            continue
        old = at(document, where)
        for value in wrong:
            scalar = value is not None and not isinstance(value, (dict, list)) and value != 10**30
            if scalar and type(old) is type(value):
                continue
            if (value is None and dotted(where) in NULLABLE | OPTIONAL) or (
                isinstance(value, dict) and where[-1] == "arguments"
            ):
                continue
            message = refused(changed(document, where, value))
            names = [name for name in where if isinstance(name, str)]
            assert ".".join(names[-2:-1]) in message and names[0] in message, (where, message)
            count += 1
    assert count > 500


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_unknown_fields(kind: str) -> None:
    document = json.loads(KINDS[kind].to_json())
    for where in places(document):
        parent = where[-2] if len(where) > 1 else ""
        if isinstance(at(document, where[:-1]), list) or parent in (*MAPPINGS, "value"):
            continue
        less = copy.deepcopy(document)
        del at(less, where[:-1])[where[-1]]
        if dotted(where) not in OPTIONAL:
            assert f"{where[-1]} is missing" in refused(less)
        more = changed(document, (*where[:-1], "strange"), 1)
        assert "strange is unknown" in refused(more)


def test_unknown_fields_of_a_newer_version_are_kept_and_said() -> None:
    """At every place where a record stands; of this version or an older one they are an error."""
    document = json.loads(ALL.to_json())
    document["tools"]["deblur_export"] = "9.1.dev0"
    more = copy.deepcopy(document)
    some: tuple[Where, ...] = ((), ("input",), ("passes", 1), ("facts", "range"))
    for where in (*some, ("precision_map", "high_precision"), ("engine", "profile")):
        at(more, where)["strange\x1b"] = {"a": [1]}
    manifest = Manifest.from_json(json.dumps(more), "net.onnx")
    assert manifest.as_dict() == more
    assert len(manifest.unknown) == 6
    (note,) = manifest.notes
    assert "from deblur-export 9.1.dev0" in note and r"strange\x1b, " in note
    assert "\x1b" not in note
    derived = manifest.derived(engine=None, passes=())
    assert len(json.loads(derived.to_json())["input"]) == len(more["input"])
    assert Manifest.from_json(json.dumps(document), "net.onnx").notes == ()
    del more["weights"]
    assert "weights is missing" in refused(more)


def test_wrong_values_of_the_right_type() -> None:
    document = json.loads(ALL.to_json())
    for where, value in (
        (("target",), "strange"),
        (("precision",), "fp8"),
        (("model", "origin"), "elsewhere"),
        (("input", "layout"), "NHWC"),
        (("input", "shape", 0), "height"),
        (("input", "shape", 3), 64),
        (("input", "channels"), 1),
        (("input", "multiple"), 0),
        (("input", "multiple"), 10**9),
        (("output", "scale"), 0),
        (("output", "index"), -1),
        (("free",), ["batch"]),
        (("facts", "multiple", "by"), "guessed"),
        (("tile", "field"), -1),
        (("tile", "period"), 0),
        (("calibration", "layout"), "gpu"),
        (("engine", "profile", "smallest", 2), 0),
        (("engine", "profile", "smallest", 2), 4000),
        (("engine", "profile", "largest"), [1, 3, 64]),
        (("high_precision",), "int8"),
        (("engine", "profile"), None),
        (("passes", 1, "max_error"), -(10**30)),
    ):
        message = refused(changed(document, where, value))
        names = [name for name in where if isinstance(name, str)]
        assert names[0] in message and names[-1] in message, (where, message)
    fp16 = json.loads(KINDS["fp16"].to_json())
    assert "calibration" in refused(changed(fp16, ("precision",), "int8"))
    del fp16["precision_map"]
    assert "precision_map" in refused(fp16)
    assert "high_precision" in refused(changed(fp16, ("high_precision",), "bf16"))


def test_truncated_text() -> None:
    text = ALL.to_json()
    for length in range(0, len(text), 101):
        assert "cannot be read as JSON" in refused(text[:length])


@pytest.mark.parametrize("known", [1, 3, "2", None, True, 2.0, [2], {"a": 1}, 10**40, "x" * 10**6])
def test_another_format(known: object) -> None:
    document = KINDS["fp32"].as_dict() | {"format": known}
    message = refused(json.dumps(document))
    assert "manifest format" in message and "is not 2" in message and "export again" in message


def test_a_manifest_of_format_1() -> None:
    """As it was: the network's name, where its record is now."""
    message = refused({"format": 1, "model": "m2aenet", "variant": "tiny", "size_multiple": 8})
    assert "manifest format 1 is not 2" in message


DEEP = 100_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * DEEP, "nested too deeply"),
        ('{"format": 2, "facts": ' + '{"a":' * DEEP, "nested too deeply"),
        ('{"format": 2, "model": ' + "[" * 400 + "]" * 400 + "}", "is missing"),
        ('{"format": NaN}', "NaN"),
        ('{"format": -Infinity}', "Infinity"),
        ('{"format": ' + "9" * 5000 + "}", "JSON"),
        ("", "JSON"),
        ("null", "is not an object"),
        ("[]", "is not an object"),
        ('"format"', "is not an object"),
        ("{}", "format is missing"),
        ('{"format": 2, "\\ud800\\n' + "k" * 10**5 + '": 1}', "is unknown"),
        (b"\xff\xfe\x00", "JSON"),
        (b"\x89PNG\r\n", "JSON"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_hostile_text(content: str | bytes, words: str) -> None:
    assert words in refused(content)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1e999", "9" * 400])
@pytest.mark.parametrize("place", ['"max_error": 1e-15', '"max_abs": 2.5e-06', '"value": 8'])
def test_numbers_that_are_none(number: str, place: str) -> None:
    text = ALL.to_json()
    assert place in text
    name = place.split(":")[0]
    refused(text.replace(place, f"{name}: {number}"))


def test_values_of_any_type_are_bounded() -> None:
    deep: Any = 1
    for _ in range(30):
        deep = [deep]
    for value, words in ((deep, "nested too deeply"), (object(), "nothing that JSON has")):
        document = changed(ALL.as_dict(), ("facts", "multiple", "value"), value)
        assert words in refused(document)
    document = changed(ALL.as_dict(), ("model", "arguments"), {"a": {1: 2}})
    assert "model.arguments.a is not an object" in refused(document)


def test_blocks_that_contradict_each_other_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="precision_map"):
        replace(KINDS["fp32"], precision="fp16", high_precision="fp16")
    with pytest.raises(ValueError, match="free"):
        replace(KINDS["fp32"], free=())


def test_a_derived_file_has_neither_hash_nor_parity() -> None:
    derived = KINDS["fp32 verified"].derived(opset=22)
    assert (derived.file, derived.parity, derived.opset) == (None, None, 22)
    assert derived.model == KINDS["fp32"].model


def embed(source: Path, target: Path, content: str) -> Path:
    """A copy of an ONNX file with another manifest inside and none beside it."""
    model = onnx.load(source)
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    entry.value = content
    onnx.save(model, target)
    return target


def test_built_in_networks_are_described_in_full(exported: Exported) -> None:
    manifest = exported("nafnet").manifest
    assert (manifest.model.origin, manifest.model.where) == ("built-in", None)
    assert manifest.model.source and manifest.model.source_sha256 is None
    assert (manifest.input.channels, manifest.input.range) == (3, (0.0, 1.0))
    assert (manifest.output.index, manifest.output.scale, manifest.output.range) == (0, 1, (0, 1))
    assert manifest.free == ("batch", "height", "width")
    assert manifest.tile.period == manifest.input.multiple > 1 and not manifest.tile.proved
    assert manifest.facts["multiple"] == Fact(manifest.input.multiple, "given")
    assert manifest.file is not None and manifest.file.bytes > 0


def test_damaged_manifests_through_the_command_line(
    exported: Exported, invoke: Invoke, tmp_path: Path
) -> None:
    source = exported("nafnet")
    document = source.manifest.as_dict()
    net, _ = tmp_path / "net.onnx", photo(tmp_path / "a.png")
    for content, words in (
        (json.dumps(document | {"format": 1}), "manifest format 1 is not 2"),
        (json.dumps(document)[:200], "cannot be read as JSON"),
        ("[" * DEEP, "nested too deeply"),
        (json.dumps(changed(document, ("input", "shape"), {})), "input.shape is not a list"),
        (json.dumps(changed(document, ("weights", "sha256"), 5)), "weights.sha256 is not a text"),
    ):
        embed(source.path, net, content)
        for verb in (("verify", net), ("run", net, "a.png"), ("trt", net), ("bench", net)):
            assert_refused(invoke(*verb), str(net), words, "export again")
    crop = changed(document, ("model", "arguments"), {"train_size": "huge"})
    artifact = read_artifact(embed(source.path, net, json.dumps(crop)))
    with pytest.raises(DeblurExportError, match="train_size is no size of training crops"):
        cases_for(artifact)


def test_damaged_files_beside_through_the_command_line(
    exported: Exported, invoke: Invoke, tmp_path: Path
) -> None:
    net = Path(shutil.copy(exported("nafnet").path, tmp_path / "net.onnx"))
    beside = sidecar_path(net)
    for content in ("{", "[]", "{}", '{"file": {"sha256": 5}}', "\x00"):
        beside.write_text(content, encoding="utf-8")
        said = "net.onnx.json: not a manifest: "
        assert_refused(invoke("verify", net), said, "delete it or export again")
    beside.write_text(replace(exported("nafnet").manifest, file=None).to_json(), encoding="utf-8")
    assert "was edited after its export" in read_artifact(net).notes[0]
    beside.unlink()
    beside.mkdir()
    assert read_artifact(net).manifest.file is None, "no file is beside it"


def test_damaged_engine_manifests_through_the_command_line(
    exported: Exported, invoke: Invoke, tmp_path: Path
) -> None:
    net = Path(shutil.copy(exported("nafnet").path, tmp_path / "net.engine"))
    photo(tmp_path / "a.png")
    beside = sidecar_path(net)
    manifest = KINDS["engine"]
    for content, words in (
        ("{", "cannot be read as JSON"),
        (KINDS["fp32 as written"].to_json(), "not the manifest of an engine"),
        (json.dumps(manifest.as_dict() | {"engine": []}), "engine is not an object"),
        (json.dumps(manifest.as_dict() | {"format": 1}), "manifest format 1 is not 2"),
        (manifest.to_json(), "SHA-256 differs"),
    ):
        beside.write_text(content, encoding="utf-8")
        for verb in (("verify", net), ("run", net, "a.png")):
            assert_refused(invoke(*verb), words, "build it")
    whole = Artifact(net, manifest).recorded()
    assert read_engine(net) == whole
