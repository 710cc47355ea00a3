"""The parity report as a self-contained HTML file.

Styles, script and images are inside the file, and its content policy forbids anything else. The
same report gives the same bytes (with the same version of Pillow).
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from deblur_export.export.parity.ground_truth_report import ground_truth_section
from deblur_export.export.parity.report import (
    LAYER_TOLERANCE,
    PIXEL_TOLERANCE,
    CaseImages,
    CaseResult,
    ParityReport,
    case_cells,
    error_text,
    plain,
    tolerance_text,
)
from deblur_export.export.parity.report_figures import (
    MAX_SIDE,
    error_scale,
    frame,
    heat_map,
    img,
    layer_curve,
)
from deblur_export.shown import shown

LONGEST = 1000  # characters of a text from outside

STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b1f27;--dim:#5f6878;--line:#dfe3ea;
--good:#12773d;--good-bg:#e3f5ea;--bad:#b3201b;--bad-bg:#fde8e6;--accent:#2f62d8}
@media (prefers-color-scheme:dark){:root{--bg:#12151b;--card:#1a1f28;--ink:#e6e9ef;--dim:#98a2b3;
--line:#2d3440;--good:#63d394;--good-bg:#133022;--bad:#ff8f88;--bad-bg:#3d1a19;--accent:#86a9ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1200px;padding:24px 16px 48px;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.25rem;margin:0 0 16px;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:0 0 12px}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;
margin:16px 0}
.banner{border:0;border-left:6px solid}.banner p{margin:0;overflow-wrap:anywhere}
.banner .word{font-size:1.6rem;
font-weight:700;line-height:1.2;margin-bottom:4px}
.banner.good{color:var(--good);background:var(--good-bg)}
.banner.bad{color:var(--bad);background:var(--bad-bg)}
.good{color:var(--good)}.bad{color:var(--bad)}.dim,figcaption{color:var(--dim)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;margin:0}dt{color:var(--dim)}
dd{margin:0;overflow-wrap:anywhere}.terms{margin-top:10px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.92em}
th,td{padding:6px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th{color:var(--dim);font-weight:500}tr:last-child td{border-bottom:0}
th:first-child,td:first-child{text-align:left}
td.wrap{white-space:normal;min-width:9em;overflow-wrap:anywhere}
a{color:var(--accent)}
.pair{display:grid;gap:16px 24px;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr))}
figure{margin:0 0 14px;min-width:0}figcaption{font-size:.88em;margin-top:6px}
.frame{position:relative;aspect-ratio:var(--ar);width:min(100%,80vh*var(--ar));overflow:hidden;
border-radius:8px;background:#8883}
.frame img{position:absolute;inset:0;width:100%;height:100%;display:block}
.square img{image-rendering:pixelated}
.slider img+img{clip-path:inset(0 0 0 var(--x))}
.slider i{position:absolute;top:0;bottom:0;left:var(--x);width:2px;margin-left:-1px;
background:#fff;box-shadow:0 0 0 1px #0006;pointer-events:none}
.slider i:after{content:"\\2194";position:absolute;top:50%;left:1px;width:34px;height:34px;
margin:-17px;border-radius:50%;background:#fff;color:#222;font:20px/32px system-ui;
text-align:center;box-shadow:0 1px 4px #0008}
.slider:focus-within{outline:3px solid var(--accent);outline-offset:2px}
.slider span{position:absolute;bottom:8px;padding:1px 8px;border-radius:6px;background:#000a;
color:#fff;font-size:.8em;pointer-events:none}.slider .l{left:8px}.slider .r{right:8px}
.slider input{position:absolute;inset:0;width:100%;height:100%;margin:0;appearance:none;
-webkit-appearance:none;background:none;outline:0;cursor:ew-resize;touch-action:pan-y}
input::-webkit-slider-thumb{-webkit-appearance:none;width:2px;height:34px}
input::-moz-range-thumb{width:2px;height:34px;border:0;background:none}
.ring{position:absolute;width:22px;height:22px;margin:-11px;border:2px solid #fff;
border-radius:50%;box-shadow:0 0 0 1px #000,inset 0 0 0 1px #000}
svg{display:block;width:100%;height:auto}svg text{fill:var(--dim);font-size:11px}
svg .bar{fill:var(--accent)}svg .grid{stroke:var(--line)}
svg .limit{stroke:var(--bad);stroke-dasharray:5 4;stroke-width:1.5}svg .limit-text{fill:var(--bad)}
svg polyline{fill:none;stroke:var(--accent);stroke-width:1.5;opacity:.6}
svg circle{fill:var(--accent)}svg circle.bad{fill:var(--bad)}.curve{min-width:640px}
@media (max-width:480px){section{padding:14px 12px}svg.scale text{font-size:12.5px}}
svg .first{fill:none;stroke:var(--bad);stroke-width:2}
summary{cursor:pointer}pre{overflow-x:auto;font-size:.88em;margin:10px 0 0}
"""

NOTE = f"""Photos are shown as JPEG with at most {MAX_SIDE} pixels on the longer side. All numbers
and the error map are computed from the full-size values before rounding to 8 bits, except PSNR
8-bit."""

# Names of columns and rows, and what they mean.
TERMS = (
    (
        "reference",
        "what the file should compute, in float32: its network in PyTorch, or the file named above",
    ),
    ("candidate", "the file, run by the runtime named above, on the same input"),
    (
        "max abs, mean abs",
        "largest and mean absolute difference of the two outputs, for images in 0…1; one level of "
        "an 8-bit image is 4e-03",
    ),
    (
        "PSNR",
        "peak signal-to-noise ratio of the candidate against the reference, in dB: more is closer, "
        "and inf is equal; a difference of one 8-bit level in every pixel is 48 dB",
    ),
    ("PSNR 8-bit", "the same after both outputs are rounded to 8 bits, as a photo stores them"),
    ("SSIM", "structural similarity of the two outputs: 1 is equal"),
    (
        "flips",
        "discrete choices of the network (pixels of a mask, selected pixels) that differ, of all; "
        "the outputs are compared with the choices of the candidate in both",
    ),
    ("tolerance", "the bounds within which a case passes; they follow from the precision"),
    (
        "relative RMS",
        "of a layer: root mean square of the difference, divided by that of the reference",
    ),
    ("diverges", "of a layer: its relative RMS is above layer_rms_rel"),
)

SCRIPT = """
for (const range of document.querySelectorAll(".slider input")) {
  const show = () => range.parentNode.style.setProperty("--x", range.value + "%");
  range.addEventListener("input", show);
  show();
}
"""


def to_html(report: ParityReport) -> str:
    """The report as an HTML page: verdict, cases, images, layer curve and manifest."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    policy += f"script-src 'sha256-{digest}'"
    manifest = json.dumps(plain(report.manifest), indent=2)
    cases = sorted(report.cases, key=_rank)
    pictures = [
        _case_section(index, case, case.images, report.tolerance.get(PIXEL_TOLERANCE))
        for index, case in enumerate(cases)
        if case.images is not None
    ]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{report.verdict[:4]} - {_text(report.artifact)}</title>",
            f"<style>{STYLE}</style></head><body>",
            f"<h1>Parity report: {_text(report.artifact)}</h1>",
            _banner(report),
            _case_table(cases),
            ""
            if report.ground_truth is None
            else ground_truth_section(report.ground_truth, report.reference_name),
            *pictures,
            _layer_section(report) if report.layers else "",
            _terms(),
            "<section><details><summary>Manifest</summary>"
            f"<pre>{_lines(manifest)}</pre></details></section>"
            f'<p class="dim">{NOTE}</p><script>{SCRIPT}</script></body></html>\n',
        ]
    )


def _rank(case: CaseResult) -> tuple[bool, bool, float]:
    """The order on the page: what failed, then photos before noise, the largest error first."""
    error = math.inf if math.isnan(case.max_abs) else case.max_abs
    return case.passed, not case.photo, -error


def _text(value: object) -> str:
    return escape(shown(value, LONGEST))


def _lines(text: str) -> str:
    return "\n".join(map(_text, text.splitlines()))


def _terms() -> str:
    entries = "".join(f"<dt>{name}</dt><dd>{escape(meaning)}</dd>" for name, meaning in TERMS)
    return (
        "<section><details open><summary>What the terms mean</summary>"
        f'<dl class="terms">{entries}</dl></details></section>'
    )


def _banner(report: ParityReport) -> str:
    word, _, sentence = report.verdict.partition(": ")
    state = "good" if report.passed else "bad"
    diverged = ""
    if report.first_diverged is not None:
        diverged = f"<p>First layer that diverges: <b>{_text(report.first_diverged)}</b></p>"
    meaning = "agrees" if report.passed else "does not agree"
    entries = [
        ("Reference", report.reference),
        ("Candidate", report.candidate),
        ("Artifact", report.artifact),
        ("Precision", str(report.manifest.get("precision", "unknown"))),
        ("Tolerance", tolerance_text(report)),
        *(("Note", note) for note in report.notes),
        *report.provenance.items(),
    ]
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in entries)
    return (
        f'<section class="banner {state}"><p class="word">{word}</p>'
        f"<p>The candidate {meaning} with the reference: {_text(sentence)}</p>"
        f"{diverged}</section><section><h2>What was compared</h2><dl>{rows}</dl></section>"
    )


def _case_table(cases: Sequence[CaseResult]) -> str:
    names = ["", "shape", "max abs", "mean abs", "PSNR", "PSNR 8-bit", "SSIM", "flips"]
    head = "".join(f"<th>{name}</th>" for name in ["case", *names])
    rows = ""
    for index, case in enumerate(cases):
        name, *cells = map(_text, case_cells(case))
        link = f'<a href="#case-{index}">{name}</a>' if case.images else name
        reason = f'<br><span class="bad">{_text(case.reason)}</span>' if case.reason else ""
        rows += f'<tr><td class="wrap">{link}{reason}</td><td>{_word(case)}</td>'
        rows += "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return (
        '<section><h2>Cases</h2><div class="scroll"><table>'
        f"<tr>{head}</tr>{rows}</table></div></section>"
    )


def _case_section(index: int, case: CaseResult, images: CaseImages, tolerance: float | None) -> str:
    slider = (
        f"{img(images.reference, 'reference')}{img(images.candidate, 'candidate')}<i></i>"
        '<span class="l">reference</span><span class="r">candidate</span>'
        '<input type="range" min="0" max="100" step="0.5" value="50" autocomplete="off" '
        'aria-label="Reference to the left of the line, candidate to the right">'
    )
    ring, worst = _worst(images.error)
    heat = img(heat_map(images.error), "error", lossless=True) + ring
    return f"""<section id="case-{index}"><h2>{_text(case.name)} {_word(case)}</h2>
<div class="pair"><figure>{frame(images.input.shape, img(images.input, "input"))}
<figcaption>Input{_scaled_note(images)}</figcaption></figure>
<figure>{frame(images.reference.shape, slider, "slider")}
<figcaption>Output of reference and candidate. Drag the line or use the arrow keys.</figcaption>
</figure><figure>{frame(images.error.shape, heat)}
<figcaption>Absolute error, the largest over the channels. {worst}</figcaption></figure>
<figure>{error_scale(images.error, tolerance)}
<figcaption>Fraction of pixels in each decade of error; the bar is the scale of the map.
</figcaption></figure></div></section>"""


def _word(case: CaseResult) -> str:
    state, word = ("good", "pass") if case.passed else ("bad", "FAIL")
    return f'<b class="{state}">{word}</b>'


def _worst(error: npt.NDArray[np.float32]) -> tuple[str, str]:
    """A ring around the pixel with the largest error of [H,W], and a sentence about it."""
    y, x = (int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
    worst = float(error[y, x])
    if worst == 0:
        return "", "No pixel differs."
    left, top = (x + 0.5) / error.shape[1], (y + 0.5) / error.shape[0]
    return (
        f'<div class="ring" style="left:{left:.3%};top:{top:.3%}"></div>',
        f"Worst (ring): {error_text(worst)}, or {worst * 255:.3g}/255, at row {y}, column {x}.",
    )


def _scaled_note(images: CaseImages) -> str:
    height, width = images.reference.shape[:2]
    if max(height, width) <= MAX_SIDE:
        return ""
    return (
        f". Images are scaled down from {width}x{height}; each pixel of the error map shows the "
        "largest error that it covers."
    )


def _layer_section(report: ParityReport) -> str:
    rows = "".join(
        f'<tr><td class="wrap{" bad" if layer.diverged else ""}">{_text(layer.name)}</td>'
        f"<td>{error_text(layer.rms_rel)}</td><td>{error_text(layer.max_abs)}</td></tr>"
        for layer in report.layers
    )
    return f"""<section><h2>Error layer by layer</h2>
<div class="scroll">{layer_curve(report, report.tolerance.get(LAYER_TOLERANCE))}</div>
<p class="dim">RMS of the difference divided by RMS of the reference, in execution order; hover over
a point for its name. Red points diverge.</p>
<details><summary>All {len(report.layers)} layers</summary><div class="scroll"><table>
<tr><th>layer</th><th>relative RMS</th><th>max abs</th></tr>{rows}
</table></div></details></section>"""
