"""docs/ops is what the specifications of the ops say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from deblur_export.export.passes.attach_functions import attach_functions
from deblur_export.export.passes.share_sampling_grid import share_sampling_grid
from deblur_export.plugins import ops_pages
from deblur_export.plugins.compile import cpu, cuda, tensorrt
from deblur_export.plugins.ops import MODULES, OPS
from deblur_export.plugins.spec import OpSpec

DOCS = Path(__file__).parents[2] / "docs" / "ops"
PAGES = ops_pages.pages()
IN_FILES = [spec for spec in OPS.values() if spec.body is not None]


def test_there_is_one_page_per_file_of_ops() -> None:
    names = {module.__name__.rpartition(".")[2] for module in MODULES}
    assert set(PAGES) == {"index.md", *(f"{name}.md" for name in names)}
    assert {path.name for path in DOCS.iterdir()} == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_up_to_date(name: str) -> None:
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == PAGES[name], f"run: {ops_pages.COMMAND}"


def test_the_command_writes_them(tmp_path: Path) -> None:
    ops_pages.main([str(tmp_path / "docs")])
    for name, text in PAGES.items():
        assert (tmp_path / "docs" / name).read_bytes() == text.encode()


@pytest.mark.parametrize("spec", OPS.values(), ids=lambda spec: spec.name)
def test_a_page_names_all_of_an_op(spec: OpSpec) -> None:
    (page,) = (text for name, text in PAGES.items() if f"# {spec.name}" in text.replace(", ", "# "))
    for name, tensor in {**spec.inputs, **spec.outputs}.items():
        assert f"| `{name}` |" in page
        assert f"[{tensor.shape}]" in page
        assert tensor.fp32 in page
    assert spec.source in page
    assert all(f"| `{name}` |" in page for name in spec.attributes)
    for native in (spec.cpu, spec.cuda):
        assert native is None or f"`{native.name}`" in page
    assert all(text in page for text in spec.bodies.values())


@pytest.mark.parametrize("spec", IN_FILES, ids=lambda spec: spec.name)
def test_the_example_runs(spec: OpSpec) -> None:
    """With its body, on ONNX Runtime; the output has the shape and the type that the page says."""
    text = ops_pages.example(spec)
    model = ir.from_proto(onnx.parser.parse_model(text))
    feed = {value.name: _ones(value) for value in model.graph.inputs}
    share_sampling_grid(model)
    attach_functions(model, "portable")
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for y, declared in zip(session.run(None, feed), model.graph.outputs, strict=True):
        assert declared.shape is not None and declared.dtype is not None
        assert y.shape == tuple(declared.shape.numpy())
        assert y.dtype == declared.dtype.numpy()


def _ones(value: ir.Value) -> np.ndarray:
    """Also for indices: each is that of the second pixel."""
    assert value.shape is not None and value.dtype is not None
    return np.ones(value.shape.numpy(), value.dtype.numpy())


def test_libraries_have_the_names_of_their_builders() -> None:
    assert Path(cpu.LIBRARY).stem == ops_pages.CPU
    assert Path(cpu.EXTENSION).stem == ops_pages.OPENVINO
    assert Path(cuda.LIBRARY).stem == ops_pages.CUDA
    assert Path(tensorrt.LIBRARY).stem == ops_pages.TENSORRT
