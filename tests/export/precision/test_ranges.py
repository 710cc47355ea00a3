"""Ranges of tensors: counted right, of one graph, and kept out of float16 where they leave it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.inliner import inline_local_functions
from rich.console import Console

from deblur_export.artifact import ModelFile
from deblur_export.commands.ranges import find_ranges
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.cases import Case, random_cases
from deblur_export.export.precision import headroom_rule
from deblur_export.export.precision.cast import lower_precision
from deblur_export.export.precision.fingerprint import fingerprint
from deblur_export.export.precision.ranges import (
    LARGEST,
    TensorRange,
    headrooms_by_file,
    headrooms_by_images,
    observe,
    too_close,
    write_ranges,
)
from deblur_export.export.precision.ranges_report import plot_ranges, ranges_table
from deblur_export.export.runtimes.emulated_session import EmulatedSession, element_types
from tests import needs
from tests.conftest import Exported
from tests.export.precision.test_precision import SMALL, chain
from tests.models.training.data.conftest import textured

ONES = [Case("ones", np.ones((1, 3, 4, 4), np.float32))]


def run(model: ir.Model, precision: str, path: Path) -> Any:
    ir.save(model, path)
    return EmulatedSession(ModelFile(path), precision).run({"image": ONES[0].image})["restored"]


def test_activations_near_the_limit_stay_float32(tmp_path: Path) -> None:
    """The value is 90,000 between two convolutions: inf in float16, right once it is kept."""
    source = chain(1e-4, inner=90000.0)
    by_rule = too_close(headrooms_by_images(ONES)(source))
    assert set(by_rule) == {"scaled", "a"}
    written = tmp_path / "r.json"
    about = {"graph_sha256": fingerprint(source)}
    write_ranges(written, observe(ir.to_proto(source), ONES), about)
    assert too_close(headrooms_by_file(written)(source)) == by_rule
    kept, casting = lower_precision(source, "fp16", "portable", by_rule)
    assert {"scaled", "a", "b"} <= {name for names in casting.kept.values() for name in names}
    np.testing.assert_allclose(run(kept, "fp16", tmp_path / "k.onnx"), 10.0, rtol=1e-3)


def test_overflow_shows_without_ranges(tmp_path: Path) -> None:
    source = chain(1e-4, inner=60000.0)
    source.graph.initializers["a_weight"].const_value = ir.tensor(
        2 * np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    )
    lowered, _ = lower_precision(source, "fp16", "portable")
    assert not np.isfinite(run(lowered, "fp16", tmp_path / "o.onnx")).any()


def test_ranges_count_what_float16_loses() -> None:
    entry = TensorRange("x", "Conv")
    entry.add(np.array([0.0, 2.0**-30, -(2.0**-20), 1.0, -8.0], np.float32))
    assert (entry.low, entry.high, entry.largest) == (-8.0, 1.0, 8.0)
    assert entry.headroom == pytest.approx(np.log2(LARGEST / 8))
    assert (entry.below(-24), entry.below(-14)) == (0.2, 0.4)
    assert entry.small == -29
    entry.add(np.array([np.inf], np.float32))
    assert entry.headroom == -np.inf


def test_ranges_in_parts_are_those_at_once(exported: Exported) -> None:
    model = onnx.load(exported("nafnet").path)
    cases = [random_cases(SMALL)[3]]
    whole, parts = observe(model, cases), observe(model, cases, chunk=20_000)
    assert [r.as_dict() for r in whole] == [r.as_dict() for r in parts]
    typed_names = element_types(inline_local_functions(model))
    assert {r.name for r in whole} <= set(typed_names)
    assert {"intro", "restored"} <= {r.name for r in whole}


def test_no_number_is_cut_in_80_columns() -> None:
    entry = TensorRange("decoders.0.0.gate/Mul_with_a_long_name", "MotionDeformConv")
    entry.add(np.float32([-1.234e30, 5.678e-30, 9.876e33]))
    console = Console(file=io.StringIO(), width=80)
    console.print(ranges_table([entry]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for number in ("-1.234e+30", "9.876e+33", "2^-96.9", "2^-97", "33.33%"):
        assert number in text
    assert "…" not in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_ranges_are_drawn_and_listed(tmp_path: Path) -> None:
    needs.MATPLOTLIB.load()
    found = observe(ir.to_proto(chain(1.0, inner=90000.0)), ONES)
    assert ranges_table(found).row_count == len(found)
    found[0].name = found[-1].name = "a$\\frac{$\x1b[2J"  # no formula, no command
    plot_ranges(tmp_path / "r.png", found, "chain $\\none$")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_ranges_are_of_one_graph_and_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_ranges(
        path, observe(ir.to_proto(chain(1.0)), ONES), {"graph_sha256": fingerprint(chain(1.0))}
    )
    ir.save(chain(1.0), tmp_path / "same.onnx")
    assert too_close(headrooms_by_file(path)(ir.load(tmp_path / "same.onnx"))) == {}
    with pytest.raises(DeblurExportError, match="another graph or other weights"):
        headrooms_by_file(path)(chain(1.1))


def test_the_ranges_verb_says_what_it_leaves_out(exported: Exported, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), textured(0, 32, 40))
    artifact, found = exported("m2aenet"), tmp_path / "r.json"
    lines = find_ranges(artifact.path, tmp_path, found, None, lambda step: None)
    assert any("not included" in str(line) and "PrunedConv" in str(line) for line in lines)
    assert too_close(headrooms_by_file(found)(ir.load(artifact.path))) == {}
    with pytest.raises(DeblurExportError, match="another graph"):
        headrooms_by_file(found)(chain(1.0))


def test_damaged_ranges_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(DeblurExportError, match="not written by"):
        headrooms_by_file(path)
    with pytest.raises(DeblurExportError, match="no such file"):
        headrooms_by_file(tmp_path / "gone.json")
    with pytest.raises(DeblurExportError, match="range of float32"):
        headroom_rule("bf16", path, None, None, False, print)
