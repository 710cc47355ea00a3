"""TensorRT for RTX builds the files, without a GPU, and the engines are what was asked for.

Its builder also stands in for that of TensorRT, whose Python interface it shares: what TensorRT
has alone, the engine inspector and version compatibility, is not executed.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from deblur_export import models
from deblur_export.artifact import Artifact, ModelFile, read_artifact
from deblur_export.calibration.calibrate import Calibration, calibrate
from deblur_export.calibration.qdq import quantized_weight
from deblur_export.engine_file import read_engine
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.engines import build as straight_line
from deblur_export.export.engines import nvinfer
from deblur_export.export.engines.build import Outcome, build_engine
from deblur_export.export.engines.builders import Choice, choose
from deblur_export.export.engines.check import check_engine
from deblur_export.export.engines.options import BuildOptions, Sizes, profile_for
from deblur_export.export.engines.stored_weights import stored_weights
from deblur_export.export.engines.tensorrt_builder import TensorRtBuilder
from deblur_export.export.engines.typed import claim_of
from deblur_export.export.pipeline import ExportOptions
from deblur_export.export.runtimes import nvinfer_log
from deblur_export.precision import EnginePrecision
from tests import needs
from tests.conftest import FIXED_SIZE, Exported, usual_options
from tests.models.training.data.conftest import textured

pytestmark = [pytest.mark.trt, needs.RTX.mark(needs.RTX.installed())]

TINY = [
    (name, variant)
    for name in models.NAMES
    for variant in models.get(name).variants
    if variant.startswith("tiny")
]
# The others take up to a minute each.
QUICK = {("nafnet", "fp32"), ("nafnet", "fp16"), ("m2aenet", "fp16")}
BUILT = [
    pytest.param(*pair, precision, marks=[] if (pair[0], precision) in QUICK else pytest.mark.slow)
    for pair in TINY
    for precision in ("fp32", "fp16", "bf16")
]
PARSED = [pytest.param(*pair, marks=[] if pair[1] == "tiny" else pytest.mark.slow) for pair in TINY]
SMALL = Sizes(largest=(256, 320))


class Silence:
    """A listener that hears nothing."""

    def start(self, phase: str, parent: str | None, steps: int) -> None: ...

    def step(self, phase: str, step: int) -> None: ...

    def finish(self, phase: str) -> None: ...


def parse(path: Path) -> Any:
    """The network of a file, and what keeps it alive."""
    import tensorrt_rtx as trt

    return nvinfer.parse(trt, path.read_bytes(), nvinfer_log.message_log(trt), path.name)


def rtx(artifact: Artifact, output: Path, options: BuildOptions | None = None) -> Outcome:
    """Build with TensorRT for RTX."""
    options = options or BuildOptions(sizes=SMALL)
    return build_engine(artifact, options, choose("rtx", options), output, Silence())


@pytest.mark.parametrize(("model", "variant"), PARSED)
def test_rtx_form_parses(exported: Exported, model: str, variant: str) -> None:
    network = parse(exported(model, variant, options=usual_options(model, "rtx")).path).network
    assert [network.get_input(i).name for i in range(network.num_inputs)] == ["image"]
    assert [network.get_output(i).name for i in range(network.num_outputs)] == ["restored"]


@pytest.mark.slow
@pytest.mark.parametrize("model", FIXED_SIZE)
def test_rtx_form_of_dynamic_size_parses(exported: Exported, model: str) -> None:
    network = parse(exported(model, options=ExportOptions(target="rtx")).path).network
    assert list(network.get_input(0).shape) == [-1, 3, -1, -1]


@pytest.mark.parametrize(("model", "variant", "precision"), BUILT)
def test_engine_has_the_precision_asked_for(
    exported: Exported, tmp_path: Path, model: str, variant: str, precision: EnginePrecision
) -> None:
    artifact = exported(model, variant, options=ExportOptions(target="rtx"))
    options = BuildOptions(precision, Sizes(), compute_capabilities=("8.9",))
    outcome = rtx(artifact, tmp_path / "net.engine", options)
    assert outcome.engine is not None
    manifest = read_engine(tmp_path / "net.engine").manifest
    assert manifest.precision == precision
    assert manifest.weights == artifact.manifest.weights
    engine = manifest.engine
    assert engine is not None and engine.profile is not None and manifest.file is not None
    assert engine.profile.largest == (1, 3, 2560, 2560)
    assert engine.flags.compute_capabilities == ("8.9",)
    assert manifest.file.bytes == outcome.engine.stat().st_size
    assert manifest.parity is None
    for shown in (engine.check.network, engine.check.engine):
        assert shown is not None
        assert shown.counts[precision] >= 0.6 * sum(shown.counts.values())


def test_a_graph_that_is_not_what_was_asked_makes_no_engine(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = exported("nafnet", options=ExportOptions(target="rtx"))
    monkeypatch.setattr(straight_line, "typed_file", lambda artifact, *_: artifact)
    with pytest.raises(CheckFailedError, match="asked for fp16, but the graph is not fp16"):
        rtx(artifact, tmp_path / "net.engine", BuildOptions("fp16", SMALL))
    assert not list(tmp_path.iterdir())


def test_an_engine_that_is_not_what_the_graph_says_is_not_kept(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A builder that takes the typed graph and drops its types: the same numbers, wide."""
    artifact = exported("nafnet", options=ExportOptions(target="rtx"))
    options = BuildOptions("fp16", SMALL)
    real = nvinfer.serialize
    wide = onnx.load(artifact.path)
    for tensor in wide.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            rounded = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    onnx.save(wide, tmp_path / "wide.onnx")

    def forgetful(trt: Any, parsed: nvinfer.Parsed, config: Any, *arguments: Any) -> bytes:
        plain = parse(tmp_path / "wide.onnx")
        profile = profile_for(artifact.manifest.input.shape, SMALL)
        return real(trt, plain, nvinfer.configure(trt, plain, profile, options), *arguments)

    monkeypatch.setattr(nvinfer, "serialize", forgetful)
    (tmp_path / "net.engine").write_text("an older one", encoding="utf-8")
    with pytest.raises(CheckFailedError, match=r"the built engine is not .*32 fp32"):
        rtx(artifact, tmp_path / "net.engine", options)
    assert (tmp_path / "net.engine").read_text(encoding="utf-8") == "an older one"


def image(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4)


def test_stored_weights_are_told_apart(tmp_path: Path) -> None:
    """By the bytes of an engine, in each layout that was seen, and only if most are found."""
    random = np.random.default_rng(0)
    weights = [random.standard_normal((24, 16, 3, 3)).astype(np.float32) for _ in range(3)]
    nodes = [
        onnx.helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"])
        for i, _ in enumerate(weights)
    ]
    initializers = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = onnx.helper.make_graph(nodes, "g", [image("x0")], [], initializers)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "a.onnx")

    def stored(*parts: np.ndarray[Any, Any]) -> object:
        engine = b"head".join(part.tobytes() for part in parts)
        found = stored_weights(b"begin" + engine + b"end", ModelFile(tmp_path / "a.onnx"))
        return found and dict(found[0].counts)

    first, second, third = weights
    half = np.float16
    assert stored(first, second.transpose(0, 2, 3, 1), third) == {"fp32": 3}
    assert stored(*(w.astype(half) for w in weights)) == {"fp16": 3}
    assert stored(first, second.astype(half).transpose(1, 2, 3, 0)) == {"fp32": 1, "fp16": 1}
    assert stored(first) is None


def test_stored_int8_weights_are_told_from_what_they_stand_for(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((24, 16, 3, 3)).astype(np.float32)
    levels, scales = quantized_weight(weight, 0)
    pair = onnx.helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0)
    conv = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    constants = [numpy_helper.from_array(levels, "q"), numpy_helper.from_array(scales, "s")]
    graph = onnx.helper.make_graph([pair, conv], "g", [image("x")], [], constants)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "a.onnx")
    wide = levels * scales[:, None, None, None]
    for form, precision in ((levels, "int8"), (wide.astype(np.float16), "fp16"), (wide, "fp32")):
        found = stored_weights(form.transpose(0, 2, 3, 1).tobytes(), ModelFile(tmp_path / "a.onnx"))
        assert found is not None
        assert (dict(found[0].counts), dict(found[1].counts)) == ({precision: 1}, {"int8": 1})


@pytest.fixture(scope="module")
def calibrated(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """NAFNet in int8, calibrated on two small crops."""
    folder = tmp_path_factory.mktemp("int8")
    cv2.imwrite(str(folder / "photo.png"), textured(0))
    options = Calibration(folder, count=2, crop=32, max_drop=99, cache=folder / "cache")
    source = exported("nafnet", options=ExportOptions(target="rtx"))
    return calibrate(source, options, folder / "net_int8.onnx").artifact


def test_int8_engine_holds_int8_and_float16(calibrated: Artifact, tmp_path: Path) -> None:
    options = BuildOptions("int8+fp16", SMALL, half_io=True)
    outcome = rtx(calibrated, tmp_path / "net.engine", options)
    assert outcome.typed.path.name == "net_int8_fp16_io16.onnx"
    manifest = read_engine(tmp_path / "net.engine").manifest
    assert (manifest.precision, manifest.high_precision) == ("int8", "fp16")
    assert manifest.input.dtype == manifest.output.dtype == "float16"
    assert manifest.engine is not None and manifest.engine.check.engine is not None
    network, engine = manifest.engine.check.network.counts, manifest.engine.check.engine.counts
    assert network["int8"] == manifest.int8_layers > 70
    assert set(network) == {"int8", "fp16"} == set(engine)
    assert engine["int8"] > 0.8 * sum(engine.values())


def test_int8_pairs_that_the_parser_does_not_make_are_noticed(
    calibrated: Artifact, tmp_path: Path
) -> None:
    """A file whose weights lost their pairs while its manifest still speaks of them."""
    import tensorrt_rtx as trt

    model = onnx.load(calibrated.path)
    dims = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    pairs = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    conv = next(n for n in model.graph.node if n.op_type == "Conv" and n.input[1] in pairs)
    wide = np.ones(dims[pairs[conv.input[1]]], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(wide, "wide"))
    conv.input[1] = "wide"
    onnx.save(model, tmp_path / "net.onnx")
    census = nvinfer.census(trt, parse(tmp_path / "net.onnx").network)
    claim = claim_of(calibrated)
    assert census.counts["int8"] == claim.int8_layers - 1
    with pytest.raises(CheckFailedError, match="but the parser made"):
        check_engine("int8", census, None, census, claim)


def test_custom_ops_of_another_target_are_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(DeblurExportError, match="export it with deblur-export onnx --target rtx"):
        rtx(exported("m2aenet"), tmp_path / "net.engine")
    network = parse(exported("nafnet").path).network  # without custom ops there is no difference
    assert network.num_layers > 100


def test_sizes_and_operators_that_do_not_fit(exported: Exported, tmp_path: Path) -> None:
    fixed = exported("nafnet", options=ExportOptions(target="rtx", shape=(1, 3, 17, 23)))
    with pytest.raises(DeblurExportError, match="accepts 1x3x17x23 only"):
        rtx(fixed, tmp_path / "net.engine")
    model = onnx.load(exported("nafnet").path)
    model.graph.node[5].op_type, model.graph.node[5].domain = "NoSuchOperator", "strange"
    model.opset_import.add(domain="strange", version=1)
    onnx.save(model, tmp_path / "strange.onnx")
    with pytest.raises(
        DeblurExportError, match=r"ONNX parser does not support it: .*NoSuch"
    ) as caught:
        rtx(read_artifact(tmp_path / "strange.onnx"), tmp_path / "net.engine")
    assert "\n" not in str(caught.value)


def test_interruption_leaves_nothing(exported: Exported, tmp_path: Path) -> None:
    class Impatient(Silence):
        def step(self, phase: str, step: int) -> None:
            signal.raise_signal(signal.SIGINT)

    artifact = exported("nafnet", options=ExportOptions(target="rtx"))
    options = BuildOptions(sizes=SMALL)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build_engine(
            artifact, options, choose("rtx", options), tmp_path / "net.engine", Impatient()
        )
    assert signal.getsignal(signal.SIGINT) is before
    assert not list(tmp_path.iterdir())


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], TensorRtBuilder]:
    """tensorrt(version, datatype): TensorRT's builder on the builder of TensorRT for RTX, with an
    inspector that reports convolutions of a type."""
    # TensorRT for RTX aborts where it meets a node with a plugin.
    monkeypatch.setenv("DEBLUR_PLUGINS_LIBRARY", "none")

    def make(version: str, datatype: str = "Float") -> TensorRtBuilder:
        import tensorrt_rtx as trt

        class Engine:
            def __init__(self, log: object) -> None: ...

            def deserialize_cuda_engine(self, data: bytes) -> Engine:
                return self

            create_engine_inspector = lambda self: self  # noqa: E731

            def get_engine_information(self, form: object) -> str:
                layer = {"LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": datatype}]}
                return json.dumps({"Layers": [layer]})

        module = ModuleType("tensorrt")
        vars(module).update({k: v for k, v in vars(trt).items() if not k.startswith("__")})
        vars(module).update(__version__=version, Runtime=Engine)
        return TensorRtBuilder(module)

    return make


def test_tensorrt_builds_inspects_and_keeps_its_timing_cache(
    exported: Exported, tmp_path: Path, tensorrt: Callable[..., TensorRtBuilder]
) -> None:
    artifact = exported("m2aenet", options=ExportOptions(target="rtx"))
    cache, engine = tmp_path / "t.cache", tmp_path / "net.engine"
    options = BuildOptions(sizes=SMALL, timing_cache=cache, workspace=1, hardware_compatible=True)
    choice = Choice(tensorrt("10.3.0"), ())
    outcome = build_engine(artifact, options, choice, engine, Silence())
    assert any("without a plugin: MotionDeformConv" in line for line in outcome.lines)
    assert cache.stat().st_size > 0
    assert json.loads((tmp_path / "net.layers.json").read_text(encoding="utf-8"))["Layers"]
    manifest = read_engine(tmp_path / "net.engine").manifest
    assert manifest.engine is not None and manifest.engine.check.engine is not None
    assert manifest.engine.version == "10.3.0"
    assert manifest.engine.check.engine.counts == {"fp32": 1}

    half = Choice(tensorrt("10.3.0", "Half"), ())
    with pytest.raises(CheckFailedError, match="asked for fp32, but the built engine is not"):
        build_engine(artifact, options, half, engine, Silence())


def test_plugins_take_the_place_of_functions(
    exported: Exported, tensorrt: Callable[..., TensorRtBuilder]
) -> None:
    path = exported("m2aenet", options=ExportOptions(target="rtx")).path
    builder = tensorrt("11.0")
    assert builder._graph(ModelFile(path), []) == path.read_bytes()
    model = onnx.load_from_string(builder._graph(ModelFile(path), ["PrunedConv"]))
    for node in model.graph.node:
        attributes = {a.name: a.s for a in node.attribute if a.name.startswith("plugin_")}
        expected = {"plugin_namespace": b"deblur"} if node.domain == "deblur" else {}
        if node.op_type == "PrunedConv":
            expected["plugin_version"] = b"1"
        assert attributes == expected
    assert {function.name for function in model.functions} == {"MotionDeformConv", "SamplingGrid"}

    model = onnx.load_from_string(
        builder._graph(ModelFile(path), ["MotionDeformConv", "PrunedConv"])
    )
    nodes = [node for node in model.graph.node if node.domain == "deblur"]
    assert {node.op_type for node in nodes} == {"MotionDeformConv", "PrunedConv"}
    assert {len(n.input) for n in nodes if n.op_type == "MotionDeformConv"} == {4}
    assert [function.name for function in model.functions] == ["SamplingGrid"]


def test_a_library_without_plugins(
    exported: Exported, tmp_path: Path, tensorrt: Callable[..., TensorRtBuilder]
) -> None:
    artifact = exported("m2aenet", options=ExportOptions(target="rtx"))
    text = shutil.copy(__file__, tmp_path / "lib.so")
    for library, words in ((tmp_path / "gone.so", "no such file"), (text, "not a plugin library")):
        options = BuildOptions(sizes=SMALL, plugins=(Path(library),))
        with pytest.raises(DeblurExportError, match=words) as caught:
            build_engine(artifact, options, Choice(tensorrt("11.0"), ()), tmp_path / "e", Silence())
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["m2aenet", "nafnet"])
def test_portable_form_parses_with_normalization_layers(exported: Exported, model: str) -> None:
    import tensorrt_rtx as trt

    network = parse(exported(model).path).network
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    assert sum(layer.type == trt.LayerType.NORMALIZATION for layer in layers) > 20


def test_local_pooling_stays_small(exported: Exported) -> None:
    """Slices of dynamic size would make a thousand layers of each pooling."""
    local, plain = (parse(exported("nafnet", local=on).path).network for on in (True, False))
    assert local.num_layers - plain.num_layers < 14 * 120


@pytest.mark.slow
def test_paper_variant_parses(exported: Exported) -> None:
    assert parse(exported(variant="base").path).network.num_layers > 1000
