"""What cannot be adopted ends with one line that says what to give, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from deblur_export.export.adopt import equal
from tests.export.adopt import files
from tests.export.adopt.files import File, value
from tests.test_cli import Invoke, assert_refused, invoke

__all__ = ["invoke"]  # a fixture
Make = Callable[[Path], object]


def two_images(path: Path) -> Path:
    file = File()
    file.add("Add", ["x", "before"], "sum")
    return files.body(file, "sum").save(path, further=[value("before")])


def no_image(path: Path) -> Path:
    file = File()
    file.add("Relu", ["x"], "y")
    return file.save(path, value("x", shape=(1, 10)), [value("y", shape=(1, 10))])


def classifier(path: Path) -> Path:
    file = File()
    file.add("GlobalAveragePool", ["x"], "mean")
    file.add("Flatten", ["mean"], "y")
    return file.save(path, outputs=[value("y", shape=("n", 3))])


def several_images(path: Path) -> Path:
    file = files.body(File())
    file.add("Relu", ["y"], "also")
    shape = ("n", 3, "a", "b")
    return file.save(path, outputs=[value("y", shape=shape), value("also", shape=shape)])


def free_channels(path: Path) -> Path:
    file = File()
    file.add("Relu", ["x"], "y")
    return file.save(path, value("x", shape=("n", "c", "h", "w")))


def unknown_operator(path: Path) -> Path:
    file = File()
    file.add("Sharpen", ["x"], "y", domain="theirs")
    return file.save(path, domains=["theirs"])


def many_channels(path: Path) -> Path:
    file = File()
    file.add("Relu", ["x"], "y")
    return file.save(path, value("x", shape=("n", 7, "h", "w")))


def one_free_side(path: Path) -> Path:
    return files.plain(path, input=value("x", shape=(1, 3, 64, "w")))


def random_numbers(path: Path) -> Path:
    file = File()
    file.add("RandomNormalLike", ["x"], "noise")
    file.add("Add", ["x", "noise"], "y")
    return file.save(path)


def hidden_randomness(path: Path) -> Path:
    """In training form without a constant: the mode is computed."""
    file = File()
    file.add("Not", [file.constant("off", np.bool_(False))], "mode")
    file.constant("ratio", np.float32(0.5))
    file.add("Dropout", ["x", "ratio", "mode"], "y")
    return file.save(path)


def training_norm(path: Path) -> Path:
    file = File()
    for name, number in (("gain", 1), ("shift", 0), ("mean", 0), ("variance", 1)):
        file.constant(name, np.full(3, number, np.float32))
    node = onnx.helper.make_node(
        "BatchNormalization",
        ["x", "gain", "shift", "mean", "variance"],
        ["y", "new_mean", "new_variance"],
        training_mode=1,
    )
    file.nodes.append(node)
    return file.save(path)


def training_dropout(path: Path) -> Path:
    file = File()
    file.constant("ratio", np.float32(0.5))
    file.add("Dropout", ["x", "ratio", file.constant("mode", np.bool_(True))], "y")
    return file.save(path)


def quantized(path: Path) -> Path:
    file = files.body(File(), output="y0")
    file.constant("step", np.float32(0.1))
    file.constant("zero", np.int8(0))
    file.add("QuantizeLinear", ["y0", "step", "zero"], "levels")
    file.add("DequantizeLinear", ["levels", "step", "zero"], "y")
    return file.save(path)


def not_a_number(path: Path) -> Path:
    file = File()
    file.add("Log", ["x"], "log")
    file.add("Sqrt", ["log"], "y")
    return file.save(path)


def smaller(path: Path) -> Path:
    file = File()
    file.add("AveragePool", ["x"], "y", kernel_shape=[2, 2], strides=[2, 2])
    return file.save(path)


def one_size(path: Path) -> Path:
    """Its sizes are declared free, and a constant inside has one."""
    file = File()
    file.add("Add", ["x", file.constant("bias", np.zeros((1, 3, 64, 64), np.float32))], "y")
    return file.save(path)


def old(path: Path) -> Path:
    return files.plain(path, opset=6, ir_version=4)


def text(path: Path) -> None:
    path.write_bytes(bytes([255]) * 50)


REFUSED: dict[str, tuple[Make, tuple[str, ...]]] = {
    "none": (lambda path: None, ("net.onnx", "no such file", "give an ONNX file")),
    "no ONNX": (text, ("net.onnx", "not an ONNX file")),
    "two images": (two_images, ("x float32", "before", "--input-name")),
    "no image": (no_image, ("none of its inputs is an image", "[1, 10]")),
    "a classifier": (classifier, ("for an image of 1x3x64x64 it gives y 1x3", "no image")),
    "several outputs": (several_images, ("y, also", "--output-name y")),
    "free channels": (free_channels, ("channels", "are free", "--channels 3")),
    "an operator": (unknown_operator, ("net.onnx", "ONNX Runtime cannot load it", "Sharpen")),
    "seven channels": (many_channels, ("has 7 channels", "1 or 3 or 4", "--axes")),
    "one free side": (one_free_side, ("one side fixed and the other free",)),
    "random numbers": (random_numbers, ("RandomNormalLike", "draws random numbers")),
    "hidden randomness": (hidden_randomness, ("two runs on the same image differ",)),
    "training": (training_norm, ("BatchNormalization", "training form", "net.eval()")),
    "dropout": (training_dropout, ("Dropout", "training form", "net.eval()")),
    "quantized": (quantized, ("QuantizeLinear", "quantizes", "float32 file", "int8")),
    "NaN": (not_a_number, ("NaN or infinity", "--range")),
    "smaller": (smaller, ("no image of the same channels", "1x3x32x32")),
    "one size": (one_size, ("runs on 64x64 and on no other", "--shape 1x3x64x64")),
    "old": (old, ("opset 6", "opset 7 and newer")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, invoke: Invoke, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    make(tmp_path / "net.onnx")
    before = sorted(tmp_path.iterdir())
    assert_refused(invoke("adopt", "net.onnx"), *words)
    assert sorted(tmp_path.iterdir()) == before


def test_what_the_refusals_advise(invoke: Invoke, tmp_path: Path) -> None:
    one_size(tmp_path / "a.onnx")
    assert invoke("adopt", "a.onnx", "--shape", "1x3x64x64", "-o", "b.onnx")[0] == 0
    several_images(tmp_path / "c.onnx")
    assert invoke("adopt", "c.onnx", "--output-name", "also", "-o", "d.onnx")[0] == 0
    free_channels(tmp_path / "e.onnx")
    assert invoke("adopt", "e.onnx", "--channels", "3", "-o", "f.onnx")[0] == 0
    two_images(tmp_path / "g.onnx")
    code, out, _ = invoke("adopt", "g.onnx", "--input-name", "x", "--set", "before=0")
    assert code == 0 and "wrote g_adopted.onnx" in out
    for name in ("b", "d", "f", "g_adopted"):
        assert invoke("verify", f"{name}.onnx")[0] == 0


def test_options_that_are_wrong(invoke: Invoke, tmp_path: Path) -> None:
    files.doubling(tmp_path / "net.onnx")
    assert_refused(invoke("adopt", "net.onnx", "--range", "1"), "not two numbers")
    assert_refused(invoke("adopt", "net.onnx", "--range", "1,0"), "the first must be the smaller")
    assert_refused(invoke("adopt", "net.onnx", "--scale", "3"), "2 times as high and wide")
    assert_refused(invoke("adopt", "net.onnx", "--scale", "5"), "not one of 1, 2, 3, 4, 8")
    assert_refused(invoke("adopt", "net.onnx", "--multiple", "0"), "between 1 and 4096")
    assert_refused(invoke("adopt", "net.onnx", "--channels", "1"), "--channels 1", "[n, 3, h, w]")
    assert_refused(invoke("adopt", "net.onnx", "--set", "sigma"), "a name and a number")
    assert_refused(invoke("adopt", "net.onnx", "--set", "sigma=1"), "no input sigma", "x float32")
    assert_refused(invoke("adopt", "net.onnx", "--input-name", "z"), "no input z", "x float32")
    assert_refused(invoke("adopt", "net.onnx", "--output-name", "z"), "no output z", "y")
    assert_refused(invoke("adopt", "net.onnx", "--shape", "1x1x8x8"), "made for 1x3x8x8")
    assert_refused(invoke("adopt", "net.onnx", "--precision", "int8"), "needs images or a dataset")
    assert_refused(invoke("adopt", "net.onnx", "--images", "."), "images are for fp16 and int8")
    assert_refused(invoke("adopt", "net.onnx", "-o", "net.txt"), "must end in .onnx")


def test_no_input_is_overwritten(invoke: Invoke, tmp_path: Path) -> None:
    files.external(tmp_path / "net.onnx")
    content = (tmp_path / "net.onnx").read_bytes()
    assert_refused(invoke("adopt", "net.onnx", "-o", "net.onnx"), "would overwrite", "is read")
    assert (tmp_path / "net.onnx").read_bytes() == content


def test_our_own_files_are_used_directly(invoke: Invoke, tmp_path: Path) -> None:
    files.plain(tmp_path / "net.onnx")
    assert invoke("adopt", "net.onnx", "-o", "ours.onnx")[0] == 0
    assert_refused(invoke("adopt", "ours.onnx"), "written by deblur-export already", "verify")


def test_a_graph_that_computes_something_else_is_not_written(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(source: object, target: str, convert: bool) -> object:
        model, notes = normalized(source, target, convert)
        weight = model.graph.initializers["y.bias"]
        weight.const_value = onnx_tensor(weight.const_value.numpy() + np.float32(1e-4))
        return model, notes

    normalized, onnx_tensor = equal.normalized, equal.ir.tensor
    monkeypatch.setattr(equal, "normalized", wrong)
    files.plain(tmp_path / "net.onnx")
    code, _, err = invoke("adopt", "net.onnx")
    assert code == 1 and "differs from the original by 1.0e-04; nothing was written" in err
    assert not (tmp_path / "net_adopted.onnx").exists()
