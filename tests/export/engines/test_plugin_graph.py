"""Files in the form that needs TensorRT plugins."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from deblur_export.artifact import Artifact, read_artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines.build import build_engine
from deblur_export.export.engines.builders import Choice
from deblur_export.export.engines.options import BuildOptions
from deblur_export.export.engines.plugin_graph import use_plugins, write_plugin_form
from deblur_export.export.pipeline import ExportOptions
from deblur_export.plugins.libraries import tensorrt as tensorrt_library
from deblur_export.plugins.ops import OPS
from tests.conftest import Exported


@pytest.fixture
def artifact(exported: Exported, tmp_path: Path) -> Artifact:
    path = exported("m2aenet", options=ExportOptions(target="rtx")).path
    return read_artifact(Path(shutil.copy(path, tmp_path / "net.onnx")))


def test_every_custom_op_becomes_a_plugin(artifact: Artifact, tmp_path: Path) -> None:
    target = tmp_path / "net.plugins.onnx"
    write_plugin_form(artifact, artifact.manifest.custom_ops, target)
    model, before = onnx.load(target), onnx.load(artifact.path)
    assert not model.functions
    nodes = [node for node in model.graph.node if node.domain == "deblur"]
    for node in nodes:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes.pop("plugin_namespace") == b"deblur"
        assert attributes.pop("plugin_version") == b"1"
        assert set(attributes) <= set(OPS[node.op_type].attributes)
    # What only the body of another op reads is left out.
    grids = [node for node in before.graph.node if node.op_type == "SamplingGrid"]
    assert grids
    assert len(model.graph.node) == len(before.graph.node) - len(grids)
    assert {n.op_type: len(n.input) for n in nodes} == {"MotionDeformConv": 4, "PrunedConv": 6}
    made = {name for node in model.graph.node for name in node.output}
    made |= {value.name for value in (*model.graph.input, *model.graph.initializer)} | {""}
    assert all(name in made for node in model.graph.node for name in node.input)
    # It is no file for the other verbs.
    with pytest.raises(DeblurExportError):
        read_artifact(target)


def test_absent_inputs_are_dropped() -> None:
    names = [*"abcdef", "", "bias"]
    node = onnx.helper.make_node("SelectiveScan", names, ["y"], domain="deblur", delta_softplus=1)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "scan", [], []))
    use_plugins(model, ["SelectiveScan"])
    assert list(model.graph.node[0].input) == [*"abcdef", "bias"]


class Silence:
    """Hears nothing."""

    def start(self, phase: str, parent: str | None, steps: int) -> None: ...

    def step(self, phase: str, step: int) -> None: ...

    def finish(self, phase: str) -> None: ...


def lines(artifact: Artifact, options: BuildOptions) -> str:
    outcome = build_engine(artifact, options, Choice(None, ()), None, Silence())
    return "\n".join(outcome.lines)


def test_the_packaged_library_is_in_the_commands(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libdeblur_plugins.so"
    library.write_text(
        f"deblur plugins {tensorrt_library.VERSION} for TensorRT 11.1", encoding="utf-8"
    )
    monkeypatch.setenv("DEBLUR_PLUGINS_LIBRARY", str(library))
    text = lines(artifact, BuildOptions())
    assert f"--dynamicPlugins={library}" in text
    assert f"--plugins {library}" in text
    assert text.count(str(tmp_path / "net.plugins.onnx")) == 3
    assert "other.so" in lines(artifact, BuildOptions(plugins=(tmp_path / "other.so",)))

    (tmp_path / "net.plugins.onnx").unlink()
    monkeypatch.setenv("DEBLUR_PLUGINS_LIBRARY", "none")
    assert "lugins" not in lines(artifact, BuildOptions())
    assert not (tmp_path / "net.plugins.onnx").exists()
