"""The parity report as data, JSON, table in the terminal and HTML page."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import html.parser
import io
import json
import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from deblur_export.artifact import Artifact
from deblur_export.commands.console import make_console
from deblur_export.export.parity.provenance import command, provenance
from deblur_export.export.parity.report import (
    CaseImages,
    CaseResult,
    LayerError,
    ParityReport,
    render_table,
    to_json,
)
from deblur_export.export.parity.report_figures import MAX_SIDE, heat_map
from deblur_export.export.parity.report_html import to_html
from tests.manifests import make_manifest

HOSTILE = '<script>alert("x")</script> & [bold]'
COMMANDS = "\x1b\x07\u202e\x9b\udcff"  # obeyed by a terminal, hidden, or no UTF-8


def images(height: int = 20, width: int = 30) -> CaseImages:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    error = rng.random((height, width), dtype=np.float32) * np.float32(1e-5)
    return CaseImages(picture, picture, picture, error)


def case(name: str = "random 1x3x20x30", **changes: Any) -> CaseResult:
    good = CaseResult(
        name=name,
        shape=(1, 3, 20, 30),
        max_abs=1e-6,
        mean_abs=1e-7,
        psnr=120.5,
        psnr_8bit=math.inf,
        ssim=1.0,
        flips=0,
        choices=600,
        passed=True,
    )
    return dataclasses.replace(good, **changes)


def report(*cases: CaseResult, **changes: Any) -> ParityReport:
    made = ParityReport(
        artifact="out/net.onnx",
        reference="PyTorch float32, net:tiny",
        candidate="ONNX Runtime CPU",
        tolerance={"max_abs": 1e-4, "layer_rms_rel": 1e-3},
        cases=cases,
        manifest={"b": 1, "a": {"path": Path("w.pt"), "n": np.int64(3), "t": (1, math.nan)}},
    )
    return dataclasses.replace(made, **changes)


def failing(**changes: Any) -> ParityReport:
    layers = (
        LayerError("stem", 1e-6, 1e-7, False),
        LayerError("zero", 0.0, 0.0, False),
        LayerError("block.1 <deform>", 0.5, 0.2, True),
        LayerError("head", math.nan, math.nan, True),
    )
    bad = case("bad.png", max_abs=0.5, passed=False, reason="max_abs 0.5 > 0.0001", images=images())
    settings = {"layers": layers, "first_diverged": "block.1 <deform>"} | changes
    return report(case(), bad, **settings)


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"not JSON: {constant}")


def printed(shown: ParityReport) -> str:
    stream = io.StringIO()
    render_table(shown, Console(file=stream, width=160, color_system=None))
    return stream.getvalue()


def test_nothing_compared_is_not_a_pass() -> None:
    assert report(case()).passed
    assert not failing().passed
    assert not report().passed
    assert report().verdict == "FAIL: no case was compared."
    assert "FAIL" in to_html(report())


def test_json_is_strict_and_complete() -> None:
    document = json.loads(to_json(failing()), parse_constant=refuse)
    assert document["passed"] is False
    assert document["tolerance"] == {"layer_rms_rel": 1e-3, "max_abs": 1e-4}
    first, second = document["cases"]
    assert float(first["psnr_8bit"]) == math.inf
    assert first["shape"] == [1, 3, 20, 30]
    assert second["reason"] == "max_abs 0.5 > 0.0001"
    assert "images" not in second
    assert document["layers"][3]["rms_rel"] == "NaN"
    assert document["first_diverged"] == "block.1 <deform>"
    assert document["manifest"] == {"a": {"n": 3, "path": "w.pt", "t": [1, "NaN"]}, "b": 1}


def test_json_does_not_depend_on_the_order_of_keys() -> None:
    reordered = report(case(), tolerance={"layer_rms_rel": 1e-3, "max_abs": 1e-4})
    assert to_json(reordered) == to_json(report(case()))


def test_table_names_what_failed() -> None:
    text = printed(failing())
    assert "bad.png: max_abs 0.5 > 0.0001" in text
    assert "first layer that diverges: block.1 <deform>" in text
    assert "FAIL: 1 of 2 cases outside the tolerance." in text
    assert "tolerance: max_abs 0.0001" in text
    text = printed(report(case(HOSTILE)))
    assert HOSTILE in text  # rich markup is not read
    assert "PASS: 1 case compared, all within tolerance." in text


class Page(html.parser.HTMLParser):
    """Elements and attributes of a page; checks that what is opened is closed."""

    VOID = frozenset({"meta", "img", "input", "br", "rect", "stop", "path", "circle", "polyline"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.stack: list[str] = []
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.stack.pop() == tag


def test_html_is_well_formed_and_self_contained() -> None:
    text = to_html(failing())
    page = Page(text)
    assert "https://" not in text
    assert "http://" not in text
    targets = [value for name, value in page.attributes if name in ("src", "href")]
    assert len(targets) == 5  # four pictures and the link to their case
    assert all(target.startswith(("data:image/", "#case-")) for target in targets)
    assert not {"link", "iframe", "object", "base"} & set(page.tags)
    assert "@import" not in text
    assert ("type", "range") in page.attributes


def test_html_escapes_everything_from_outside() -> None:
    bad = case(HOSTILE, passed=False, reason=HOSTILE, images=images())
    text = to_html(
        report(
            bad,
            artifact=HOSTILE,
            reference=HOSTILE,
            candidate=HOSTILE,
            tolerance={HOSTILE: 1.0},
            layers=(LayerError(HOSTILE, 1.0, 1.0, True),),
            first_diverged=HOSTILE,
            manifest={HOSTILE: HOSTILE},
        )
    )
    assert Page(text).tags.count("script") == 1
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text


def test_no_text_from_outside_is_obeyed_hidden_or_endless() -> None:
    long = COMMANDS + "k" * 100_000
    bad = case(long, passed=False, reason=long, images=images())
    layers = (LayerError(long, 1.0, 1.0, True),)
    shown = report(bad, artifact=COMMANDS, layers=layers, first_diverged=long, notes=(long,))
    shown = dataclasses.replace(shown, manifest={long: long}, provenance={COMMANDS: long})
    page = to_html(shown)
    assert not set(page) & set(COMMANDS)
    assert "characters)…" in page, "cut, and said so"
    assert "kkkkkkkkkk" * 100 not in page
    page.encode()
    to_json(shown).encode()
    assert json.loads(to_json(shown))["cases"][0]["name"] == long
    stream = io.StringIO()
    render_table(shown, make_console(file=stream, width=160))
    assert not set(stream.getvalue()) & set(COMMANDS)


def test_what_failed_comes_first_then_photos_then_noise() -> None:
    cases = [
        case("noise 1", max_abs=5e-6),
        case("small.png", max_abs=1e-6, photo=True),
        case("noise 2", max_abs=9e-6, images=images()),
        case("large.png", max_abs=2e-6, photo=True, images=images()),
        case("noise 3", max_abs=0.1, passed=False, reason="too far"),
        case("nan.png", max_abs=math.nan, passed=False, reason="not finite", photo=True),
    ]
    page = to_html(report(*cases))
    names = re.findall(r'<td class="wrap">(?:<a [^>]+>)?([\w. ]+)', page)
    assert names == ["nan.png", "noise 3", "large.png", "small.png", "noise 2", "noise 1"]
    links = dict(re.findall(r'<a href="#(case-\d+)">([^<]+)', page))
    assert links == dict(re.findall(r'<section id="(case-\d+)"><h2>([^<]+) <b', page))


def test_the_page_says_where_when_and_of_what(tmp_path: Path) -> None:
    file = tmp_path / "net.engine"
    file.write_bytes(b"graph")
    found = provenance(Artifact(file, make_manifest()))
    page = to_html(report(case(), provenance=found))
    assert hashlib.sha256(b"graph").hexdigest() in page
    for name in ("Date", "Host", "Command", "SHA-256 of the weights"):
        assert f"<dt>{name}</dt><dd>{html.escape(found[name])}</dd>" in page
    assert datetime.fromisoformat(found["Date"]).tzinfo is not None
    assert command(["/x/__main__.py", "verify", "a b.onnx"]) == "deblur-export verify 'a b.onnx'"
    assert command(["/x/deblur-export", "models"]) == "deblur-export models"


def test_columns_and_figures_are_explained() -> None:
    page = to_html(failing())
    heads = re.findall(r"<th>([^<]+)</th>", page)
    explained = " ".join(re.findall(r"<dt>([^<]+)</dt>", page))
    assert {name for name in heads if name not in explained} <= {"case", "shape", "layer"}


def test_html_is_deterministic() -> None:
    assert to_html(failing()) == to_html(failing())


def test_html_says_what_failed() -> None:
    text = to_html(failing())
    assert '<p class="word">FAIL</p>' in text
    assert "does not agree with the reference" in text
    assert "First layer that diverges: <b>block.1 &lt;deform&gt;</b>" in text
    assert text.count('<circle class="first"') == 1
    assert text.count(' class="bad"><title>') == 2
    typed = {"precision": "fp16"}
    good = to_html(report(case(images=images()), notes=("emulated",), manifest=typed))
    assert "<dt>Precision</dt><dd>fp16</dd>" in good
    assert "<dt>Note</dt><dd>emulated</dd>" in good
    assert '<p class="word">PASS</p>' in good
    assert "FAIL" not in good


@pytest.mark.parametrize("rms", [0.0, math.nan, math.inf, 1e-30, 1.0])
@pytest.mark.parametrize("tolerance", [{}, {"layer_rms_rel": 0.0}, {"layer_rms_rel": 1e-3}])
def test_layer_curve_draws_any_number(rms: float, tolerance: dict[str, float]) -> None:
    layers = (LayerError("only", rms, rms, True),)
    text = to_html(report(case(), layers=layers, tolerance=tolerance))
    (y,) = re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', text)
    assert 24 <= float(y) <= 270


@pytest.mark.parametrize("shape", [(3000, 2001), (1025, 1025), (40, 5000), (1, 1)])
def test_one_bad_pixel_survives_scaling(shape: tuple[int, int]) -> None:
    error = np.zeros(shape, dtype=np.float32)
    clean = heat_map(error)
    assert max(clean.shape) <= MAX_SIDE
    error[shape[0] // 3, shape[1] - 1] = 0.5
    bad = (heat_map(error) != clean).any(axis=-1)
    assert bad.sum() == 1
    error[0, 0] = np.nan
    assert tuple(heat_map(error)[0, 0]) == (0, 255, 102)


def test_pictures_are_in_the_page_at_display_size() -> None:
    shown = images(20, 2 * MAX_SIDE)
    shown.error[7, 1001] = 0.5
    text = to_html(report(case(images=shown)))
    found = re.findall(r"data:image/(\w+);base64,([^\"]+)", text)
    assert [kind for kind, _ in found] == ["jpeg", "jpeg", "jpeg", "png"]
    for _, data in found:
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.size == (MAX_SIDE, 10)
    assert "at row 7, column 1001." in text
    assert "1 px</text>" in text  # the histogram counts it too
    assert f"scaled down from {2 * MAX_SIDE}x20" in text


def test_identical_images_have_no_ring() -> None:
    shown = dataclasses.replace(images(), error=np.zeros((20, 30), dtype=np.float32))
    text = to_html(report(case(images=shown)))
    assert "No pixel differs." in text
    assert 'class="ring"' not in text
