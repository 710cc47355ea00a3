"""--runtime auto: what it takes on which machine, and what it says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes import onnxruntime as ort_backend
from deblur_export.export.runtimes import openvino as openvino_backend
from deblur_export.export.runtimes.choose import Chosen, choose_runtime
from deblur_export.export.runtimes.onnxruntime import CUDA_PROVIDER
from deblur_export.export.runtimes.open import open_session
from deblur_export.plugins.libraries.openvino import Found
from tests.manifests import in_precision, make_manifest

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """machine(cuda, openvino, native): a provider that is there ("yes"), without a device or not
    starting; OpenVINO installed or not; its native ops or why there are none."""

    def make(cuda: str = "no", openvino: bool = True, native: str = "") -> None:
        providers = [CUDA_PROVIDER] * (cuda != "no") + ["CPUExecutionProvider"]
        monkeypatch.setattr(ort_backend.onnxruntime, "get_available_providers", lambda: providers)
        monkeypatch.setattr(ort_backend, "gpu_count", lambda: int(cuda != "no device"))
        monkeypatch.setattr(ort_backend, "_cuda_starts", lambda: cuda == "yes")
        fake = SimpleNamespace(__version__="2026.4.1") if openvino else None
        monkeypatch.setitem(sys.modules, "openvino", fake)
        found = Found(None, native) if native else Found(Path("libops.so"))
        monkeypatch.setattr(openvino_backend.openvino_library, "find", lambda release: found)

    return make


def artifact(path: str = "net.onnx", **changes: Any) -> Artifact:
    made = Artifact(Path(path), make_manifest(**({"custom_ops": ("PrunedConv",)} | changes)))
    vars(made)["_read"] = (onnx.ModelProto(), ())  # as if an empty graph had been read
    return made


@pytest.mark.parametrize(
    ("here", "changes", "runtime", "words"),
    [
        ({"cuda": "yes"}, {}, "onnxruntime-cuda", "a CUDA device is there"),
        ({"cuda": "yes"}, in_precision("fp16"), "onnxruntime-cuda", "CUDA"),
        ({"cuda": "yes"}, in_precision("int8"), "onnxruntime", "kernels lack int8"),
        ({"cuda": "no device"}, {}, "openvino", "with native kernels of the custom ops"),
        ({"cuda": "broken"}, {"target": "ort"}, "onnxruntime", "cuDNN libraries) and the file was"),
        ({}, {"custom_ops": ()}, "openvino", "it is installed"),
        ({"native": "stale"}, {"custom_ops": ()}, "openvino", "it is installed"),
        ({"native": "stale"}, {}, "onnxruntime", "no native kernels of its custom ops (stale)"),
        ({"openvino": False}, {}, "onnxruntime", "has no CUDA and OpenVINO is not installed"),
        ({}, in_precision("fp16"), "onnxruntime", "the file is fp16"),
        ({}, in_precision("int8"), "onnxruntime", "int8"),
        ({}, in_precision("int8", layout="cpu"), "openvino", "int8"),
        ({}, in_precision("bf16"), "openvino", "ONNX Runtime has no bf16"),
        ({"openvino": False}, in_precision("bf16"), "onnxruntime", "not installed"),
        ({}, {"path": "net.engine"}, "tensorrt", "it is an engine"),
    ],
)
def test_what_auto_takes_and_why(
    machine: Machine,
    here: dict[str, Any],
    changes: dict[str, Any],
    runtime: str,
    words: str,
) -> None:
    machine(**here)
    chosen = choose_runtime("auto", artifact(**changes))
    assert chosen.runtime == runtime
    assert chosen.reason.startswith(runtime)
    assert words in chosen.reason
    assert "\n" not in chosen.reason


def test_what_the_user_says_goes(machine: Machine) -> None:
    machine(cuda="yes")
    assert choose_runtime("onnxruntime", artifact()) == Chosen("onnxruntime")
    assert choose_runtime("auto", artifact(), "bf16").runtime == "openvino"
    engine = artifact("net.plan")
    assert choose_runtime("tensorrt", engine) == Chosen("tensorrt")
    for asked, precision in (("openvino", "fp32"), ("auto", "bf16")):
        with pytest.raises(DeblurExportError, match="TensorRT alone runs it"):
            choose_runtime(asked, engine, precision)  # type: ignore[arg-type]
    with pytest.raises(DeblurExportError, match=r"deblur-export trt net\.onnx"):
        choose_runtime("tensorrt", artifact())


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_is_not_there_is_told(tmp_path: Path) -> None:
    import onnxruntime

    if CUDA_PROVIDER in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    assert not ort_backend._cuda_starts()
    with pytest.raises(DeblurExportError, match="onnxruntime-gpu"):
        open_session(tmp_path / "net.onnx", "onnxruntime-cuda")
