"""What `trt` decides before and after a build, on any machine: sizes, files, precision."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import onnx
import pytest

from deblur_export import cli
from deblur_export.api.engine_source import Data, only_artifact
from deblur_export.artifact import METADATA_KEY, Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines import commands, rtx_builder, tensorrt_builder
from deblur_export.export.engines.builders import choose
from deblur_export.export.engines.options import (
    BuildOptions,
    Profile,
    Sizes,
    parse_sizes,
    precision_from,
    precision_of,
    profile_for,
)
from deblur_export.export.engines.registry import BackendChoice
from deblur_export.export.engines.typed import check_layout, typed_file, typed_path
from deblur_export.export.pipeline import ExportOptions
from deblur_export.manifest import Manifest
from deblur_export.plugins.libraries.library_file import Found
from tests.conftest import Exported
from tests.manifests import in_precision, make_manifest

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


@pytest.mark.parametrize(
    ("given", "low", "typical", "high"),
    [
        ((None, None, None, None), (1, 3, 64, 64), (1, 3, 720, 1280), (1, 3, 2560, 2560)),
        # Upright and lying: both axes from the shortest to the longest side.
        (("128x256", "512x768", "512x768", None), (128, 128), (512, 768), (768, 768)),
        (("256x128", "768x512", "768x512", None), (128, 128), (768, 512), (768, 768)),
        # What is not given follows what is.
        ((None, None, "300x400", None), (64, 64), (300, 400), (400, 400)),
        ((None, None, "1080x1920", None), (64, 64), (1080, 1920), (1920, 1920)),
        ((None, None, "1920x1080", None), (64, 64), (1920, 1080), (1920, 1920)),
        (("128x128", None, "1080x1920", None, "landscape"), (128, 128), (1080, 1920), (1080, 1920)),
        ((None, None, "1080x1920", None, "portrait"), (64, 64), (1920, 1080), (1920, 1080)),
        ((None, None, None, None, "portrait"), (64, 64), (1280, 720), (2560, 1440)),
        (("240x320", "480x640", None, None, "landscape"), (240, 320), (480, 640), (1440, 2560)),
        ((None, None, None, "1,2,8", "any", "720x1280"), (720, 1280), (720, 1280), (720, 1280)),
        ((None, "32x48", None, None), (32, 32), (32, 48), (2560, 2560)),
        ((None, "3000x4000", None, None), (64, 64), (3000, 4000), (4000, 4000)),
        (("2000x3000", None, None, None), (2000, 2000), (2000, 2000), (3000, 3000)),
        ((None, None, None, "2"), (2, 3, 64, 64), (2, 3, 720, 1280), (2, 3, 2560, 2560)),
        ((None, None, None, "1,2,8"), (1, 3, 64, 64), (2, 3, 720, 1280), (8, 3, 2560, 2560)),
    ],
)
def test_profile(given: tuple[str | None, ...], low: object, typical: object, high: object) -> None:
    profile = profile_for(DYNAMIC, parse_sizes(*given))  # type: ignore[arg-type]
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
        ((None, "2000x1300", None, None, "landscape"), "its height must be from 64 to 1440"),
        (("500x600", None, "400x700", None, "landscape"), "--min 500x600 is larger than --max 400"),
        (("64x64", None, None, None, "any", "9x9"), "--size is the only size"),
        ((None, None, None, None, "portrait", "9x9"), "--size is the only size"),
        ((None, None, None, None, "any", "9"), "--size '9' is not HEIGHTxWIDTH"),
        ((None, None, None, "2,1,4"), "--batch '2,1,4'"),
        ((None, None, None, "1,2"), "--batch '1,2'"),
        ((None, None, None, "0,1,1"), "--batch '0,1,1'"),
    ],
)
def test_sizes_that_cannot_be(given: tuple[str | None, ...], words: str) -> None:
    with pytest.raises(DeblurExportError) as caught:
        profile_for(DYNAMIC, parse_sizes(*given))  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_a_file_of_fixed_shape_has_no_profile() -> None:
    assert profile_for((1, 3, 16, 32), Sizes()) is None
    with pytest.raises(DeblurExportError, match="accepts 1x3x16x32 only"):
        profile_for((1, 3, 16, 32), Sizes(largest=(16, 32)))


def test_the_only_file_is_found(exported: Exported, tmp_path: Path) -> None:
    def found(precision: str | None = None, data: Data = Data()) -> str:  # noqa: B008
        return only_artifact(tmp_path, precision, data).path.name  # type: ignore[arg-type]

    with pytest.raises(DeblurExportError, match=r"no \.onnx file at all"):
        found()
    (tmp_path / "strange.onnx").write_text("hello", encoding="utf-8")
    with pytest.raises(DeblurExportError, match=r"not of deblur-export or damaged: strange\.onnx"):
        found()
    net = copy(exported("nafnet"), tmp_path / "net.onnx")
    assert found() == found("fp16") == "net.onnx"
    copy(exported("nafnet"), tmp_path / "other.onnx")
    with pytest.raises(DeblurExportError, match=r"name one of them: net\.onnx, other\.onnx"):
        found()
    # What an earlier `trt --fp16` wrote is no second network.
    other = tmp_path / "other.onnx"
    claim(other, "fp16")
    assert found() == found("fp16") == found("int8") == "net.onnx"
    # A calibrated file is what int8 is built of, unless there is data to calibrate anew.
    int8 = copy(exported("nafnet"), tmp_path / "net_int8.onnx")
    claim(int8, "int8")
    assert found("int8") == found("int8+fp16") == "net_int8.onnx"
    assert found() == found("fp16") == found("int8", Data(images=tmp_path)) == "net.onnx"
    int8.unlink()
    net.unlink()
    assert found() == found("fp16") == "other.onnx"
    with pytest.raises(DeblurExportError, match=r"in another precision: other\.onnx"):
        found("bf16")


def claim(path: Path, precision: str) -> None:
    """Make a file's manifest speak of another precision."""
    model = onnx.load(path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    changed = replace(Manifest.from_json(entry.value, path), **in_precision(precision))
    entry.value = changed.to_json()
    onnx.save(model, path)
    Path(f"{path}.json").unlink()


@pytest.mark.parametrize(("name", "backend"), [("nafnet", "tensorrt"), ("m2aenet", "auto")])
def test_without_tensorrt_the_commands_are_printed(
    exported: Exported, invoke: Invoke, tmp_path: Path, name: str, backend: str
) -> None:
    copy(exported(name, options=ExportOptions("rtx")), tmp_path / "my net.onnx")
    chosen = ("--backend", backend, "--plugins", "lib.so")
    code, out, err = invoke("--max", "300x400", "--workspace", "1.5", *chosen)
    assert (code, err) == (0, "")
    assert "no engine was built" in out
    assert "TensorRT is not installed; pip install" in out
    assert "keep my net.engine.json beside the engine" in out
    assert not list(tmp_path.glob("*.engine"))
    onnx = "my net.onnx" if name == "nafnet" else "my net.plugins.onnx"  # where there are plugins
    assert (tmp_path / onnx).exists()
    lines = [shlex.split(line) for line in out.splitlines() if "tr" in line]
    (trtexec,) = (line for line in lines if line and line[0] == "trtexec")
    (polygraphy,) = (line for line in lines if line and line[0] == "polygraphy")
    assert {
        f"--onnx={onnx}",
        "--saveEngine=my net.engine",
        "--stronglyTyped",
        "--noTF32",
        "--minShapes=image:1x3x64x64",
        "--optShapes=image:1x3x300x400",
        "--maxShapes=image:1x3x400x400",
        "--memPoolSize=workspace:1.5G",
        "--dynamicPlugins=lib.so",
    } <= set(trtexec)
    assert polygraphy[:3] == ["polygraphy", "convert", onnx]
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
        (["--backend", "rtx"], "TensorRT for RTX is not installed; pip install"),
        (["net.onnx", "--int8"], "net.onnx is fp32, and int8 needs images to calibrate on"),
        (["net.onnx", "--int8", "--images", "gone"], "gone: no such folder"),
        (["net.onnx", "--int8", "--dataset", "gone"], "gone"),
        (["net.onnx", "--fp16", "--images", "gone"], "belong to --int8"),
        (["--fp16", "--bf16"], "exclude each other"),
        (["gone.onnx"], "no such file"),
        (["--max", "8"], "--max '8'"),
        (["net.onnx", "--model", "nafnet"], "exclude each other"),
        (["--variant", "tiny"], "belong to --model"),
        (["net.onnx", "-o", "no/such/net.engine"], "no such folder"),
        (["net.onnx", "-o", "net.onnx"], "would overwrite"),
        (["net.onnx", "-o", "other.onnx"], "cannot end in .onnx"),
        (["--workspace", "0"], "--workspace"),
    ],
)
def test_bad_requests(
    exported: Exported, invoke: Invoke, tmp_path: Path, arguments: list[str], words: str
) -> None:
    artifact = exported("nafnet", options=ExportOptions("rtx"))
    copy(artifact, tmp_path / "net.onnx")
    before = set(tmp_path.iterdir())
    code, _, err = invoke(*arguments)
    assert code == 2, err
    assert words in err
    assert err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_precision_flags() -> None:
    assert precision_from(False, fp16=False, bf16=False) is None
    assert precision_from(False, fp16=True, bf16=False) == "fp16"
    assert precision_from(False, fp16=False, bf16=True) == "bf16"
    assert precision_from(True, fp16=False, bf16=False) == "int8"
    assert precision_from(True, fp16=True, bf16=False) == "int8+fp16"
    assert precision_of(make_manifest(**in_precision("int8", "bf16"))) == "int8+bf16"
    assert precision_of(make_manifest(**in_precision("fp16"))) == "fp16"


def int8_artifact(path: Path, layout: str = "tensorrt", high: str = "fp32") -> Artifact:
    return Artifact(path, make_manifest((1, 3, 8, 8), **in_precision("int8", high, layout)))


def test_forms_of_an_int8_file(tmp_path: Path) -> None:
    artifact = int8_artifact(tmp_path / "net_int8.onnx")

    def name(precision: str, half_io: bool = False) -> str:
        options = BuildOptions(precision, half_io=half_io)  # type: ignore[arg-type]
        return typed_path(artifact, options, tmp_path).name

    assert name("int8") == "net_int8.onnx"
    assert name("int8+fp16") == "net_int8_fp16.onnx"
    assert name("int8", half_io=True) == "net_int8_io16.onnx"
    assert name("int8+bf16", half_io=True) == "net_int8_bf16_io16.onnx"
    for precision, own, words in (
        ("fp16", "fp32", "is int8; add --int8 to --fp16"),
        ("int8", "fp16", r"is int8\+fp16 and cannot become int8"),
        ("fp32", "fp32", "is int8 and cannot become fp32"),
    ):
        options = BuildOptions(precision)  # type: ignore[arg-type]
        with pytest.raises(DeblurExportError, match=words):
            typed_file(int8_artifact(artifact.path, high=own), options, tmp_path / "x.onnx")
    check_layout(artifact)
    with pytest.raises(DeblurExportError, match="--layout cpu, whose unsigned"):
        check_layout(int8_artifact(artifact.path, "cpu"))


def installed(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    """A module of that name and version that can do nothing."""
    module = ModuleType(name)
    module.__version__ = version  # type: ignore[attr-defined]
    module.ComputeCapability = type("ComputeCapability", (), {"__members__": {"SM89": 89}})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)


def nothing(name: BackendChoice) -> tuple[str, ...]:
    """Why there is no builder of that name."""
    choice = choose(name, BuildOptions())
    assert choice.builder is None
    return choice.reasons


def test_choice_of_a_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "tensorrt_rtx", "1.7.1.116")
    installed(monkeypatch, "tensorrt", "10.2.0")
    # The reason why there are commands instead.
    (reason,) = nothing("tensorrt")
    assert "TensorRT 10.2.0 is too old, 10.3 or newer" in reason
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    (reason,) = nothing("tensorrt")
    assert "TensorRT is not installed; pip install" in reason
    installed(monkeypatch, "tensorrt", "10.3.0.26")
    monkeypatch.setattr(tensorrt_builder, "gpu_count", lambda: 0)
    (reason,) = nothing("tensorrt")
    assert "needs an NVIDIA GPU to build" in reason
    choice = choose("auto", BuildOptions())
    assert isinstance(choice.builder, rtx_builder.RtxBuilder)
    assert [reason.split()[0] for reason in choice.reasons] == ["TensorRT", "using"]

    # What only one of them has.
    for options in (BuildOptions(version_compatible=True), BuildOptions(plugins=(Path("a.so"),))):
        with pytest.raises(DeblurExportError, match=r"TensorRT for RTX 1\.7\.1\.116 has no --"):
            choose("rtx", options)
        assert choose("auto", options).builder is None
    with pytest.raises(DeblurExportError, match=r"compute capability 8\.9, not for 9\.0"):
        choose("auto", BuildOptions(compute_capabilities=("9.0",)))

    monkeypatch.setattr(tensorrt_builder, "gpu_count", lambda: 1)
    choice = choose("auto", BuildOptions())
    assert isinstance(choice.builder, tensorrt_builder.TensorRtBuilder)
    capability = BuildOptions(compute_capabilities=("8.9",))
    with pytest.raises(DeblurExportError, match="--compute-capability is for --backend rtx"):
        choose("tensorrt", capability)
    assert isinstance(choose("auto", capability).builder, rtx_builder.RtxBuilder)

    installed(monkeypatch, "tensorrt_rtx", "1.6.0")
    with pytest.raises(DeblurExportError, match=r"1\.6\.0 is too old, 1\.7 or newer"):
        choose("rtx", BuildOptions())


def test_turing_has_neither_bf16_nor_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT for RTX, according to its support matrix."""
    installed(monkeypatch, "tensorrt_rtx", "1.7.1.116")
    builder = rtx_builder.RtxBuilder(sys.modules["tensorrt_rtx"])
    turing = BuildOptions("int8+bf16", compute_capabilities=("7.5", "8.9"))
    with pytest.raises(DeblurExportError, match=r"no int8 and no bf16 on compute capability 7\.5;"):
        builder._refuse_precision(turing)
    builder._refuse_precision(replace(turing, precision="fp16"))
    builder._refuse_precision(replace(turing, compute_capabilities=("8.9",)))


@pytest.mark.parametrize("capability", ["7.5", "8.0", "10.3", "11.0"])
def test_the_packaged_plugins_only_where_their_kernels_have_code(
    monkeypatch: pytest.MonkeyPatch, capability: str
) -> None:
    """An engine is for the GPU that builds it; on an older one the ops stay standard operators."""
    installed(monkeypatch, "tensorrt", "10.9.0")
    library = Found(Path("libdeblur_plugins.so"))
    monkeypatch.setattr(tensorrt_builder.tensorrt_library, "find", lambda _: library)
    monkeypatch.setattr(tensorrt_builder, "compute_capability", lambda: capability)
    builder = tensorrt_builder.TensorRtBuilder(sys.modules["tensorrt"])
    assert bool(builder._packaged(["LocalMean24"])) == (capability != "7.5")
