"""The exported file is valid, has names, is reproducible and can be used without this package."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from deblur_export.artifact import read_artifact
from deblur_export.export.pipeline import ExportOptions
from deblur_export.models.checkpoint import load_model
from deblur_export.target import TargetName
from tests.conftest import Exported
from tests.tolerances import NETWORK_FLOAT32

VARIANTS = [
    pytest.param("m2aenet", ExportOptions(), id="m2aenet-portable"),
    pytest.param("m2aenet", ExportOptions(target="ort"), id="m2aenet-ort"),
    pytest.param("nafnet", ExportOptions(), id="nafnet-portable"),
]
# Tracing with fixed sizes takes a fraction of the time.
FIXED = (1, 3, 50, 70)
PLAIN = ExportOptions(shape=(2, 3, 33, 47), reparam=False)
SHAPES = [(1, 3, 64, 96), (2, 3, 33, 47), (3, 3, 17, 16), (1, 3, 3, 5), (2, 3, 1, 1)]


def restore(path: Path, image: np.ndarray) -> np.ndarray:
    """Run the file with ONNX Runtime only, without this package."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (restored,) = session.run(None, {"image": image})
    return np.asarray(restored)


def image(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.mark.parametrize(("model", "options"), VARIANTS)
def test_equals_pytorch_at_any_size(exported: Exported, model: str, options: ExportOptions) -> None:
    artifact = exported(model, options=options)
    net = load_model(model, "tiny", "random:0").net
    for shape in SHAPES:
        with torch.no_grad():
            expected = net(torch.from_numpy(image(shape))).numpy()
        np.testing.assert_allclose(
            restore(artifact.path, image(shape)), expected, **NETWORK_FLOAT32
        )


@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize("bias", [-50.0, 0.0, 50.0], ids=["nothing", "some", "everything"])
def test_extreme_coverage(
    exported: Exported, tmp_path: Path, target: TargetName, bias: float
) -> None:
    """A mask of no pixels, some pixels and all pixels, in both forms of the graph."""
    net = load_model("m2aenet", "tiny", "random:0").net
    net.mask_predictor.head[4].bias.data[0] += bias  # type: ignore[union-attr, index, operator]
    model = onnx.load(exported(options=ExportOptions(target=target)).path)
    name = "mask_predictor.head.4.bias"
    tensor = next(i for i in model.graph.initializer if i.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(bias), name))
    path = tmp_path / "biased.onnx"
    onnx.save(model, path)
    x = image((2, 3, 40, 56))
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(restore(path, x), expected, **NETWORK_FLOAT32)


@pytest.mark.parametrize("options", [ExportOptions(shape=FIXED), PLAIN], ids=["folded", "plain"])
def test_fixed_shape_with_padding(exported: Exported, options: ExportOptions) -> None:
    artifact, shape = exported(options=options), options.shape
    assert shape is not None
    net = load_model("m2aenet", "tiny", "random:0").net
    with torch.no_grad():
        expected = net(torch.from_numpy(image(shape))).numpy()
    np.testing.assert_allclose(restore(artifact.path, image(shape)), expected, **NETWORK_FLOAT32)
    dims = onnx.load(artifact.path).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == list(shape)


def test_names_layers_and_functions(exported: Exported) -> None:
    model = onnx.load(exported().path)
    operators = Counter(node.op_type for node in model.graph.node)
    # 14 LayerNorm2d outside stage 4 (7 blocks), 12 in its 6 blocks, 1 in the mask predictor.
    assert operators["LayerNormalization"] == 2 * 8 + 2 * 6 + 1
    assert operators["MotionDeformConv"] == operators["PrunedConv"] == 6
    assert operators["SamplingGrid"] == 1, "sampling positions are computed once a stage"
    assert {f.name for f in model.functions} == {
        "SamplingGrid",
        "MotionDeformConv",
        "PrunedConv",
    }
    names = {node.name for node in model.graph.node}
    assert len(names) == len(model.graph.node)
    assert {"encoders.3.5/PrunedConv", "encoders.0.0.norm1/LayerNormalization"} <= names
    values = {name for node in model.graph.node for name in node.output}
    assert {"intro", "encoders.3.0", "mask", "middle_blks.0", "ending", "restored"} <= values
    anonymous = [i.name for i in model.graph.initializer if i.name.startswith("val_")]
    assert not anonymous


def test_no_reparam_keeps_the_trained_parameters(exported: Exported) -> None:
    plain = onnx.load(exported(options=PLAIN).path)
    folded = onnx.load(exported().path)
    assert "encoders.3.0.beta" in {i.name for i in plain.graph.initializer}
    assert "encoders.3.0.beta" not in {i.name for i in folded.graph.initializer}


def test_the_file_contains_no_local_paths(exported: Exported) -> None:
    content = exported().path.read_bytes()
    for text in (str(Path.cwd()), "site-packages", "stack_trace", "forward\n"):
        assert text.encode() not in content


def test_same_input_same_bytes(exported: Exported, tmp_path: Path) -> None:
    """Also in different processes, where hash seeds and memory addresses differ."""
    code = (
        "from pathlib import Path\n"
        "from deblur_export.models.checkpoint import load_model\n"
        "from deblur_export.export.pipeline import ExportOptions, export_onnx\n"
        "model = load_model('m2aenet', 'tiny', 'random:0')\n"
        f"options = ExportOptions(shape={FIXED})\n"
        f"export_onnx(model, options, Path({str(tmp_path / 'again.onnx')!r}))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    first = exported(options=ExportOptions(shape=FIXED))
    assert (tmp_path / "again.onnx").read_bytes() == first.path.read_bytes()


def test_the_file_contains_its_manifest(exported: Exported, tmp_path: Path) -> None:
    artifact = exported()
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(artifact.path.read_bytes())
    manifest = read_artifact(alone).manifest
    assert manifest.model.name == "m2aenet"
    assert manifest.weights.source == "random:0"
    changed = [report.name for report in manifest.passes if report.changed]
    assert "fold_motion_interpolation" in changed
    assert all(report.max_error < 1e-10 for report in manifest.passes)


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_polygraphy_runs_and_inspects_the_file(exported: Exported, target: TargetName) -> None:
    path = exported(options=ExportOptions(target=target)).path
    tool = Path(sys.executable).with_name("polygraphy")
    for arguments in (["run", path, "--onnxrt"], ["inspect", "model", path]):
        result = subprocess.run(
            [tool, *map(str, arguments)], capture_output=True, encoding="locale", check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
    assert "deblur" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("target", ["portable", "ort"])
def test_paper_variant_equals_pytorch(exported: Exported, target: TargetName) -> None:
    artifact = exported(variant="base", options=ExportOptions(target=target))
    net = load_model("m2aenet", "base", "random:0").net
    for shape in ((1, 3, 129, 190), (2, 3, 48, 33)):
        with torch.no_grad():
            expected = net(torch.from_numpy(image(shape))).numpy()
        np.testing.assert_allclose(
            restore(artifact.path, image(shape)), expected, **NETWORK_FLOAT32
        )


def test_intermediate_values_have_no_symbolic_shapes(exported: Exported) -> None:
    """With symbolic shapes, ONNX Runtime needs two to three times the memory."""
    graph = onnx.load(exported("nafnet").path).graph
    dims = [dim for info in graph.value_info for dim in info.type.tensor_type.shape.dim]
    assert not [dim.dim_param for dim in dims if not dim.HasField("dim_value")]
    assert [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim][2] == "height"
