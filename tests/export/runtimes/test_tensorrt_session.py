"""Engines in verify and run: everything up to the GPU, and the calls to it against a stand-in.

The stand-in runs the ONNX file that the engine came from on the addresses it is given, and lies
about nothing else, so that a wrong address, shape or type shows in the result.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deblur_export.artifact import Artifact, read_artifact, sidecar_path
from deblur_export.engine_file import read_runnable
from deblur_export.engine_record import Census, OtherFile, Profile
from deblur_export.errors import DeblurExportError
from deblur_export.export import tile_choice
from deblur_export.export.engines.build import describe
from deblur_export.export.engines.nvinfer import Built
from deblur_export.export.engines.options import BuildOptions
from deblur_export.export.images.cases import cases_for
from deblur_export.export.parity.reference import TorchReference
from deblur_export.export.parity.verify import note_on_choices, reference_model, verify
from deblur_export.export.pipeline import ExportOptions
from deblur_export.export.restore import Restorer
from deblur_export.export.runtimes import tensorrt as tensorrt_backend
from deblur_export.export.runtimes.nvinfer_log import load_plugins
from deblur_export.export.runtimes.open import open_session
from deblur_export.export.tile_choice import TileOptions
from deblur_export.models.checkpoint import load_model
from tests import needs
from tests.conftest import Exported
from tests.test_cli import Invoke, assert_refused, invoke, photo

__all__ = ["invoke"]  # a fixture
PROFILE = Profile((1, 3, 16, 16), (1, 3, 32, 32), (2, 3, 96, 96))
Make = Callable[..., Artifact]


@pytest.fixture
def make_engine(exported: Exported, tmp_path: Path) -> Make:
    """make_engine(title, **engine) -> an engine that is its ONNX file, with a manifest of ours."""

    def make(title: str = "TensorRT 10.9.0", **changes: Any) -> Artifact:
        source = exported("nafnet", options=ExportOptions("rtx"))
        path = tmp_path / "net.engine"
        shutil.copy(source.path, path)
        backend = SimpleNamespace(title=title, version=title.split()[-1])
        built = Built(b"", Census("layers", {"fp32": 1}), None)
        manifest = describe(source, PROFILE, BuildOptions(), backend, built, [])  # type: ignore[arg-type]
        assert manifest.engine is not None
        flags = replace(manifest.engine.flags, **changes.pop("flags", {}))
        engine = replace(manifest.engine, flags=flags, **changes)
        Artifact(path, replace(manifest, engine=engine)).recorded()
        return read_runnable(path)

    return make


class HostMemory:
    """Polygraphy's door to CUDA, on the memory of this process."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}

    def malloc(self, size: int) -> int:
        block = ctypes.create_string_buffer(max(size, 1))
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, address: int) -> None:
        self.blocks.pop(address, None)

    def memcpy(self, dst: int, src: int, nbytes: int, kind: int, stream_ptr: Any = None) -> None:
        ctypes.memmove(dst, src, nbytes)

    def create_stream(self) -> int:
        return 7

    def stream_synchronize(self, stream: int) -> None: ...

    def destroy_stream(self, stream: int) -> None: ...


class Context:
    def __init__(self, path: Path) -> None:
        self.session = open_session(path)
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.error = 0.0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = tuple(shape)
        return name == "image" and shape[2] != 50

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert name == "restored"
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        size = int(np.prod(self.shape))
        image, restored = (
            np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.addresses[name]))
            for name in ("image", "restored")
        )
        result = self.session.run({"image": image.reshape(self.shape)})["restored"]
        restored[:] = result.ravel() + self.error
        return True


class Fake(SimpleNamespace):
    """The parts of the module `tensorrt` that the session uses; `context` None does not load."""

    def __init__(self, context: Context | None, version: str = "10.9.0") -> None:
        class Log:
            ERROR = 1

        class Runtime:
            def __init__(self, log: Any) -> None:
                self.log = log

            def deserialize_cuda_engine(self, data: bytes) -> Any:
                if context is None:
                    self.log.log(1, "built on another\n device")
                    return None
                return SimpleNamespace(
                    create_execution_context=lambda: context,
                    get_tensor_dtype=lambda name: np.float32,
                )

        registry = SimpleNamespace(load_library=lambda path: None)
        super().__init__(
            __name__="tensorrt",
            __version__=version,
            ILogger=Log,
            Runtime=Runtime,
            nptype=lambda kind: kind,
            get_plugin_registry=lambda: registry,
        )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fake], None]:
    """gpu(fake) makes a machine with a GPU and this TensorRT."""

    def use(fake: Fake) -> None:
        memory = HostMemory()
        monkeypatch.setattr("polygraphy.cuda.cuda.wrapper", lambda: memory)
        monkeypatch.setitem(sys.modules, "tensorrt", fake)
        monkeypatch.setattr(tensorrt_backend, "gpu_count", lambda: 1)
        monkeypatch.setattr(tensorrt_backend, "compute_capability", lambda: "8.9")

    return use


def test_an_engine_is_verified_and_a_wrong_one_fails(
    make_engine: Make, gpu: Callable[[Fake], None], photos: Path, tmp_path: Path
) -> None:
    artifact = make_engine()
    context = Context(artifact.path)
    gpu(Fake(context))
    shutil.copy(photos / "chelsea.png", tmp_path)
    cases, model = cases_for(artifact, tmp_path), reference_model(artifact)
    assert [case.image.shape for case in cases] == [
        (1, 3, 16, 16),
        (1, 3, 49, 63),
        (2, 3, 73, 27),
        (1, 3, 96, 96),
    ]
    report = verify(artifact, model, cases, runtime="tensorrt")
    assert report.passed, [case.reason for case in report.cases]
    assert report.candidate.startswith("TensorRT 10.9.0 on compute capability 8.9")
    context.error = 1e-3
    report = verify(artifact, model, cases[:1], with_images=True, runtime="tensorrt")
    assert not report.passed
    assert report.cases[0].max_abs == pytest.approx(1e-3, rel=0.1)
    assert report.layers == ()


def test_choices_that_an_engine_hides_are_told() -> None:
    assert note_on_choices(TorchReference(load_model("nafnet", "tiny", "random:0"), True)) == ()
    (note,) = note_on_choices(TorchReference(load_model("m2aenet", "tiny", "random:0"), True))
    assert note.endswith("made their own: mask")


def test_an_engine_restores_photos_in_tiles_where_they_are_too_large(
    make_engine: Make, gpu: Callable[[Fake], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_engine()
    gpu(Fake(Context(artifact.path)))
    monkeypatch.setattr(tile_choice, "HALO_WITHOUT_FIELD", 8)
    monkeypatch.setattr(tile_choice, "RAMP", 16)
    restorer = Restorer(artifact, runtime="tensorrt")
    rgb = np.random.default_rng(0).random((60, 130, 3), np.float32)
    steps: list[tuple[int, int]] = []
    restored = restorer.restore(rgb, TileOptions(), lambda *step: steps.append(step)).rgb
    assert steps[-1] == (2, 2)
    onnx = Restorer(read_artifact(_onnx(artifact)))
    expected = onnx.restore(rgb, TileOptions(tile=96 - 15, overlap=32)).rgb
    np.testing.assert_allclose(restored, expected, atol=1e-5)
    with pytest.raises(DeblurExportError, match=r"accepts 1x3x16x16 to 2x3x96x96, not 1x3x60x130"):
        restorer.restore(rgb, TileOptions(tile=0))
    with pytest.raises(DeblurExportError, match=r"failed on 1x3x50x20.*no reason"):
        restorer.restore(rgb[:50, :20], TileOptions())
    with pytest.raises(DeblurExportError, match=r"run --mask with \w+_rtx.onnx"):
        Restorer(artifact, mask=True, runtime="tensorrt")


def _onnx(engine: Artifact) -> Path:
    """The ONNX file that stands in for it."""
    path = engine.path.with_suffix(".onnx")
    shutil.copy(engine.path, path)
    return path


@pytest.mark.parametrize(
    ("changes", "version", "words"),
    [
        ({"version": "10.3.1"}, "10.9.0", r"built by TensorRT 10\.3\.1, and here is 10\.9\.0"),
        ({"flags": {"compute_capabilities": ("8.6", "12.0")}}, "10.9.0", "this GPU has 8.9"),
        ({"plugins": (OtherFile("libops.so", "0" * 64),)}, "10.9.0", "add --plugins libops.so"),
        ({}, "10.9.0", "does not load on this GPU: built on another device; build it here"),
    ],
)
def test_engines_that_do_not_run_here(
    make_engine: Make,
    gpu: Callable[[Fake], None],
    changes: dict[str, Any],
    version: str,
    words: str,
) -> None:
    artifact = make_engine(**changes)
    gpu(Fake(None, version))
    with pytest.raises(DeblurExportError, match=words) as refusal:
        open_session(artifact.path, "tensorrt")
    assert "\n" not in str(refusal.value)


def test_a_library_that_holds_no_plugins(
    make_engine: Make, gpu: Callable[[Fake], None], tmp_path: Path
) -> None:
    artifact = make_engine(flags={"version_compatible": True}, version="10.3.1")
    gpu(Fake(None))
    with pytest.raises(DeblurExportError, match=r"gone\.so: no such file"):
        open_session(artifact.path, "tensorrt", plugins=[tmp_path / "gone.so"])
    with pytest.raises(DeblurExportError, match="not a plugin library that TensorRT can load"):
        open_session(artifact.path, "tensorrt", plugins=[artifact.path])


def test_a_plugin_library_is_loaded_once(tmp_path: Path) -> None:
    """By the builder and by every session of a process; a registry refuses what it has."""
    library, loaded = tmp_path / "libops.so", list[str]()
    library.touch()

    def load(path: str) -> object:
        loaded.append(path)
        return object() if loaded.count(path) == 1 else None

    registry = SimpleNamespace(load_library=load)
    trt: Any = SimpleNamespace(__name__="tensorrt", get_plugin_registry=lambda: registry)
    for _ in range(2):
        load_plugins(trt, [library], "TensorRT", SimpleNamespace(errors=[]))
    assert loaded == [str(library.resolve())]


def test_files_that_are_no_engines_of_ours(make_engine: Make, tmp_path: Path) -> None:
    artifact = make_engine()
    other = tmp_path / "other.plan"
    with pytest.raises(DeblurExportError, match="make one with deblur-export trt"):
        read_runnable(other)
    shutil.copy(artifact.path, other)
    with pytest.raises(DeblurExportError, match=r"no other\.plan\.json beside it"):
        read_runnable(other)
    sidecar_path(other).write_text("{}", encoding="utf-8")
    with pytest.raises(DeblurExportError, match="not the manifest of an engine"):
        read_runnable(other)
    shutil.copy(sidecar_path(artifact.path), sidecar_path(other))
    other.write_bytes(b"changed")
    with pytest.raises(DeblurExportError, match="SHA-256"):
        read_runnable(other)
    manifest = json.loads(sidecar_path(artifact.path).read_text(encoding="utf-8"))
    sidecar_path(other).write_text(json.dumps(manifest | {"format": 99}), encoding="utf-8")
    with pytest.raises(DeblurExportError, match="format 99"):
        read_runnable(other)


def test_a_machine_without_a_gpu_says_so_in_one_line(
    make_engine: Make, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_engine().path
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert_refused(invoke("verify", path), "which is not installed", "deblur-export[trt]")
    monkeypatch.setitem(sys.modules, "tensorrt", Fake(None))
    monkeypatch.setattr(tensorrt_backend, "gpu_count", lambda: 0)
    photo(tmp_path / "a.png")
    for command in (("verify", path), ("run", path, "a.png")):
        assert_refused(invoke(*command), "on an NVIDIA GPU, and there is none here", "_rtx.onnx")
    assert_refused(invoke("verify", path, "--runtime", "openvino"), "TensorRT alone runs it")
    assert_refused(invoke("run", path, "a.png", "--precision", "bf16"), "TensorRT alone runs it")


@pytest.mark.trt
def test_the_api_has_what_the_session_calls() -> None:
    """Of TensorRT for RTX, which is TensorRT's."""
    trt = needs.RTX.load()
    used = {
        "Runtime": ("deserialize_cuda_engine", "engine_host_code_allowed"),
        "ICudaEngine": ("create_execution_context", "get_tensor_dtype"),
        "IExecutionContext": (
            "set_input_shape",
            "get_tensor_shape",
            "set_tensor_address",
            "execute_async_v3",
        ),
    }
    missing = [
        name for kind in used for name in used[kind] if not hasattr(getattr(trt, kind), name)
    ]
    assert not missing
    assert trt.nptype(trt.float16) is np.float16
