"""What `trt` decides before and after a build, on any machine: sizes, files, backends, proof."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from deblur_export import cli
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.engines import commands, rtx_backend, tensorrt_backend
from deblur_export.export.engines.backend import choose
from deblur_export.export.engines.build import precision_from
from deblur_export.export.engines.options import (
    BuildOptions,
    Profile,
    Sizes,
    parse_sizes,
    profile_for,
)
from deblur_export.export.engines.proof import Census, inspected, prove
from deblur_export.export.engines.source import only_artifact
from deblur_export.export.manifest import Artifact
from deblur_export.export.pipeline import ExportOptions
from tests.conftest import Exported

DYNAMIC = ("batch", 3, "height", "width")
Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Invoke:
    """invoke(*arguments) -> (exit code, stdout, stderr) of `deblur-export trt` inside tmp_path, on
    a machine without any TensorRT."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["deblur-export", "trt", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        return int(stop.value.code or 0), out, err

    return run


def copy(artifact: Artifact, path: Path) -> Path:
    """The file and its manifest under another name."""
    shutil.copy(artifact.path, path)
    shutil.copy(f"{artifact.path}.json", f"{path}.json")
    return path


def sizes(low: str | None, typical: str | None, high: str | None, batch: str | None) -> Sizes:
    return parse_sizes(low, typical, high, batch)


@pytest.mark.parametrize(
    ("given", "low", "typical", "high"),
    [
        ((None, None, None, None), (1, 3, 64, 64), (1, 3, 720, 1280), (1, 3, 2560, 2560)),
        # Upright and lying: both axes from the shortest to the longest side.
        (("128x256", "512x768", "512x768", None), (128, 128), (512, 768), (768, 768)),
        (("256x128", "768x512", "768x512", None), (128, 128), (768, 512), (768, 768)),
        # What is not given follows what is.
        ((None, None, "300x400", None), (64, 64), (300, 400), (400, 400)),
        ((None, "32x48", None, None), (32, 32), (32, 48), (2560, 2560)),
        ((None, "3000x4000", None, None), (64, 64), (3000, 4000), (4000, 4000)),
        (("2000x3000", None, None, None), (2000, 2000), (2000, 2000), (3000, 3000)),
        ((None, None, None, "2"), (2, 3, 64, 64), (2, 3, 720, 1280), (2, 3, 2560, 2560)),
        ((None, None, None, "1,2,8"), (1, 3, 64, 64), (2, 3, 720, 1280), (8, 3, 2560, 2560)),
    ],
)
def test_profile(given: tuple[str | None, ...], low: object, typical: object, high: object) -> None:
    profile = profile_for(DYNAMIC, sizes(*given))
    assert profile is not None
    for shape, expected in zip(vars(profile).values(), (low, typical, high), strict=True):
        assert shape[-len(expected) :] == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("64", None, None, None), "--min '64' is not HEIGHTxWIDTH"),
        (("0x64", None, None, None), "--min '0x64'"),
        ((None, None, "64x16385", None), "--max '64x16385'"),
        ((None, "-1x5", None, None), "--opt '-1x5'"),
        (("512x512", None, "256x256", None), "--min 512x512 is larger than --max 256x256"),
        ((None, "512x512", "256x256", None), "--opt 512x512 does not lie between"),
        ((None, None, None, "2,1,4"), "--batch '2,1,4'"),
        ((None, None, None, "1,2"), "--batch '1,2'"),
        ((None, None, None, "0,1,1"), "--batch '0,1,1'"),
    ],
)
def test_sizes_that_cannot_be(given: tuple[str | None, ...], words: str) -> None:
    with pytest.raises(DeblurExportError) as caught:
        profile_for(DYNAMIC, sizes(*given))
    assert words in str(caught.value)


def test_a_file_of_fixed_shape_has_no_profile() -> None:
    assert profile_for((1, 3, 16, 32), Sizes()) is None
    with pytest.raises(DeblurExportError, match="takes 1x3x16x32 alone"):
        profile_for((1, 3, 16, 32), Sizes(largest=(16, 32)))


def test_the_only_file_is_found(exported: Exported, tmp_path: Path) -> None:
    def found(precision: str | None = None) -> str:
        return only_artifact(tmp_path, precision).path.name  # type: ignore[arg-type]

    with pytest.raises(DeblurExportError, match=r"no \.onnx file at all"):
        found()
    (tmp_path / "strange.onnx").write_text("hello")
    with pytest.raises(DeblurExportError, match=r"not ours or damaged: strange\.onnx"):
        found()
    net = copy(exported("nafnet"), tmp_path / "net.onnx")
    assert found() == found("fp16") == "net.onnx"
    copy(exported("nafnet"), tmp_path / "other.onnx")
    with pytest.raises(DeblurExportError, match=r"name one of them: net\.onnx, other\.onnx"):
        found()
    # What an earlier `trt --fp16` wrote is no second network.
    other = tmp_path / "other.onnx"
    half_precision(other)
    assert found() == found("fp16") == "net.onnx"
    net.unlink()
    assert found() == found("fp16") == "other.onnx"
    with pytest.raises(DeblurExportError, match=r"in another precision: other\.onnx"):
        found("bf16")


def half_precision(path: Path) -> None:
    """Make a file claim to be fp16."""
    import onnx

    from deblur_export.export.manifest import METADATA_KEY

    model = onnx.load(path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    entry.value = json.dumps(json.loads(entry.value) | {"precision": "fp16"})
    onnx.save(model, path)
    Path(f"{path}.json").unlink()


@pytest.mark.parametrize("name", ["nafnet", "m2aenet"])
def test_without_tensorrt_the_commands_are_printed(
    exported: Exported, invoke: Invoke, tmp_path: Path, name: str
) -> None:
    copy(exported(name, options=ExportOptions("rtx")), tmp_path / "my net.onnx")
    code, out, err = invoke("--max", "300x400", "--workspace", "1.5", "--plugins", "lib.so")
    assert (code, err) == (0, "")
    assert "no engine was built" in out
    assert not list(tmp_path.glob("*.engine"))
    lines = [shlex.split(line) for line in out.splitlines() if "tr" in line]
    (trtexec,) = (line for line in lines if line and line[0] == "trtexec")
    (polygraphy,) = (line for line in lines if line and line[0] == "polygraphy")
    assert {
        "--onnx=my net.onnx",
        "--saveEngine=my net.engine",
        "--stronglyTyped",
        "--noTF32",
        "--minShapes=image:1x3x64x64",
        "--optShapes=image:1x3x300x400",
        "--maxShapes=image:1x3x400x400",
        "--memPoolSize=workspace:1.5G",
        "--dynamicPlugins=lib.so",
    } <= set(trtexec)
    assert polygraphy[:3] == ["polygraphy", "convert", "my net.onnx"]
    assert "image:[1,3,300,400]" in polygraphy
    assert "--tf32" not in polygraphy


def test_polygraphy_takes_its_command() -> None:
    """Its own parser, with every option of ours."""
    from polygraphy.tools import registry

    options = BuildOptions(
        plugins=(Path("a.so"), Path("b.so")),
        timing_cache=Path("t.cache"),
        workspace=4,
        tf32=True,
        version_compatible=True,
        hardware_compatible=True,
    )
    profile = Profile((1, 3, 8, 8), (1, 3, 8, 16), (2, 3, 32, 32))
    line = commands.polygraphy(Path("a.onnx"), Path("a.engine"), "image", profile, options)
    import argparse

    parser = argparse.ArgumentParser()
    (convert,) = (tool for tool in registry.TOOL_REGISTRY if tool.name == "convert")
    convert.setup_parser(parser.add_subparsers())
    arguments = parser.parse_args(shlex.split(line)[1:])
    assert arguments.trt_max_shapes == [["image:[2,3,32,32]"]]
    assert arguments.plugins == ["a.so", "b.so"]
    assert arguments.strongly_typed


def test_a_file_of_fixed_shape_needs_no_shapes() -> None:
    for tool in (commands.trtexec, commands.polygraphy):
        line = tool(Path("a.onnx"), Path("a.engine"), "image", None, BuildOptions())
        assert "hapes" not in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backend", "tensorrt"], "TensorRT is not installed; pip install"),
        (["--backend", "rtx"], "TensorRT for RTX is not installed; pip install"),
        (["--int8"], "--int8: engines of calibrated files are not there yet"),
        (["--fp16", "--bf16"], "exclude each other"),
        (["gone.onnx"], "no such file"),
        (["--max", "8"], "--max '8'"),
        (["net.onnx", "--model", "nafnet"], "exclude each other"),
        (["--variant", "tiny"], "belong to --model"),
        (["net.onnx", "-o", "no/such/net.engine"], "no such folder"),
        (["net.onnx", "-o", "net.onnx"], "cannot end in .onnx"),
        (["--workspace", "0"], "--workspace"),
        (["changed.onnx"], "is not the file that changed.onnx.json describes"),
    ],
)
def test_bad_requests(
    exported: Exported, invoke: Invoke, tmp_path: Path, arguments: list[str], words: str
) -> None:
    artifact = exported("nafnet", options=ExportOptions("rtx"))
    copy(artifact, tmp_path / "net.onnx")
    changed = copy(exported("nafnet"), tmp_path / "changed.onnx")
    half = json.loads(Path(f"{changed}.json").read_text())
    half["file"]["sha256"] = "0" * 64
    Path(f"{changed}.json").write_text(json.dumps(half))
    before = set(tmp_path.iterdir())
    code, _, err = invoke(*arguments)
    assert code == 2, err
    assert words in err
    assert err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_precision_flags() -> None:
    assert precision_from(False, False, False) is None
    assert precision_from(True, False, False) == "fp16"
    assert precision_from(False, True, False) == "bf16"


def installed(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    """A module of that name and version that can do nothing."""
    module = ModuleType(name)
    module.__version__ = version  # type: ignore[attr-defined]
    module.ComputeCapability = type("ComputeCapability", (), {"__members__": {"SM89": 89}})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)


def test_choice_of_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "tensorrt_rtx", "1.7.1.116")
    installed(monkeypatch, "tensorrt", "10.2.0")
    with pytest.raises(DeblurExportError, match=r"TensorRT 10\.2\.0 is too old, 10\.3 or newer"):
        choose("tensorrt", BuildOptions())
    installed(monkeypatch, "tensorrt", "10.3.0.26")
    monkeypatch.setattr(tensorrt_backend, "gpu_count", lambda: 0)
    with pytest.raises(DeblurExportError, match="needs an NVIDIA GPU to build"):
        choose("tensorrt", BuildOptions())
    choice = choose("auto", BuildOptions())
    assert isinstance(choice.backend, rtx_backend.RtxBackend)
    assert [reason.split()[0] for reason in choice.reasons] == ["TensorRT", "using"]

    # What only one of them has.
    for options in (BuildOptions(version_compatible=True), BuildOptions(plugins=(Path("a.so"),))):
        with pytest.raises(DeblurExportError, match=r"TensorRT for RTX 1\.7\.1\.116 has no --"):
            choose("rtx", options)
        assert choose("auto", options).backend is None
    with pytest.raises(DeblurExportError, match=r"compute capability 8\.9, not for 9\.0"):
        choose("auto", BuildOptions(compute_capabilities=("9.0",)))

    monkeypatch.setattr(tensorrt_backend, "gpu_count", lambda: 1)
    choice = choose("auto", BuildOptions())
    assert isinstance(choice.backend, tensorrt_backend.TensorRtBackend)
    capability = BuildOptions(compute_capabilities=("8.9",))
    with pytest.raises(DeblurExportError, match="--compute-capability is for --backend rtx"):
        choose("tensorrt", capability)
    assert isinstance(choose("auto", capability).backend, rtx_backend.RtxBackend)

    installed(monkeypatch, "tensorrt_rtx", "1.6.0")
    with pytest.raises(DeblurExportError, match=r"1\.6\.0 is too old, 1\.7 or newer"):
        choose("rtx", BuildOptions())


def census(**counts: int) -> Census:
    return Census("layers", counts)


@pytest.mark.parametrize(
    ("precision", "network", "engine", "words"),
    [
        ("fp16", census(fp32=76), None, "asked for fp16, but the graph is not fp16"),
        ("fp16", census(fp16=30, fp32=40), census(fp16=70), "the graph is not fp16"),
        ("bf16", census(fp16=76), census(fp16=76), "the graph is not bf16"),
        ("fp32", census(fp32=70, fp16=6), None, "asked for fp32, but it holds fp16"),
        # The silent one: a typed network, and an engine that is not.
        ("fp16", census(fp16=76), census(fp32=32), "asked for fp16, but the built engine is not"),
        ("fp16", census(fp16=76), census(fp16=28, fp32=4), "the built engine is not"),
        ("fp32", census(fp32=76), census(fp16=32), "asked for fp32, but the built engine is not"),
        ("fp16", census(), None, "the graph is not fp16"),
    ],
)
def test_proof_fails(precision: str, network: Census, engine: Census | None, words: str) -> None:
    with pytest.raises(CheckFailedError, match=words) as caught:
        prove(precision, network, engine, "net.onnx")  # type: ignore[arg-type]
    assert "the engine was not kept" in str(caught.value)


def test_proof_holds_and_says_what_it_rests_on() -> None:
    lines = prove("fp16", census(fp16=70, fp32=6), census(fp16=28, fp32=4), "net.onnx")
    assert lines == ["layers: 70 fp16, 6 fp32 of 76", "layers: 28 fp16, 4 fp32 of 32"]
    alone = prove("fp32", census(fp32=76), None, "net.onnx")
    assert "the proof is the network's alone" in alone[1]


def layer(kind: str, **tensor: str) -> dict[str, object]:
    return {"Name": kind, "LayerType": kind, "Inputs": [{"Name": "x", **tensor}], "Outputs": []}


@pytest.mark.parametrize(
    ("layers", "counts"),
    [
        # TensorRT 10: one field, spelled in many ways.
        (
            [
                layer("CaskConvolution", **{"Format/Datatype": "Channel major FP16 format"}),
                layer("CaskGemmConvolution", **{"Format/Datatype": "Half"}),
                layer("gemm", **{"Format/Datatype": "Row major linear FP32"}),
                layer("Reformat", **{"Format/Datatype": "Float"}),
            ],
            {"fp16": 2, "fp32": 1},
        ),
        # TensorRT 11: type and format apart.
        (
            [
                layer("CaskConvolution", Datatype="BFloat16", Format="NHWC8"),
                layer("MatrixMultiply", Datatype="Float", Format="Linear"),
                layer("CaskConvolution", Datatype="Int8", Format="NHWC16"),
            ],
            {"bf16": 1, "fp32": 1, "int8": 1},
        ),
        # Fused into one piece: every layer that has floating-point inputs.
        ([layer("Myelin", Datatype="Half"), layer("Shape", Datatype="Int64")], {"fp16": 1}),
    ],
)
def test_inspector(layers: list[dict[str, object]], counts: dict[str, int]) -> None:
    found = inspected(json.dumps({"Layers": layers}))
    assert found is not None
    assert found.counts == counts


def test_inspector_without_types_proves_nothing() -> None:
    assert inspected(json.dumps({"Layers": ["intro/Conv", "ending/Conv"]})) is None
