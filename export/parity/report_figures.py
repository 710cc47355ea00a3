"""The figures of the HTML report: photos, the error heat map with its scale, the layer curve."""

from __future__ import annotations

import base64
import io
import math
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from deblur_export.export.parity.metrics import DECADES, decade_histogram
from deblur_export.export.parity.report import LayerError, ParityReport, error_text
from deblur_export.shown import shown

MAX_SIDE = 1024  # largest side of an image in the report, in pixels
SMALL_SIDE = 256  # up to this size images are lossless and enlarged without interpolation

# Heat map colours, one for each of DECADES.
COLOURS = ["#05030f", "#1a1145", "#3c1a7a", "#782189", "#b23578", "#e05250", "#f6853a", "#fdc055"]
COLOURS += ["#fff7c8"]
NAN_COLOUR = (0, 255, 102)


def heat_map(error: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Draw an absolute error as a heat map.

    Colours are on a logarithmic scale from 1e-8 to 1, and NaN is green. The image is downscaled by
    the maximum, so that a single bad pixel remains visible.

    Args:
        error: [H,W].

    Returns:
        uint8 [h,w,3], RGB, with sides of at most MAX_SIDE.
    """
    height, width = shown_size(*error.shape)
    rows, columns = (
        np.arange(side) * full // side
        for side, full in zip((height, width), error.shape, strict=True)
    )
    pooled = np.maximum.reduceat(np.maximum.reduceat(error, rows, axis=0), columns, axis=1)
    stops = [tuple(bytes.fromhex(colour[1:])) for colour in COLOURS]
    level = np.log10(np.clip(pooled, DECADES[0], DECADES[-1]))
    channels = [
        np.interp(level, np.log10(DECADES), channel) for channel in zip(*stops, strict=True)
    ]
    channels = [
        np.where(np.isnan(pooled), nan, channel)
        for nan, channel in zip(NAN_COLOUR, channels, strict=True)
    ]
    colours: npt.NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def shown_size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def img(image: npt.NDArray[np.uint8], alt: str, lossless: bool = False) -> str:
    """An <img> element with an image uint8 [H,W,3], downscaled if needed, as its data."""
    height, width = shown_size(*image.shape[:2])
    picture = Image.fromarray(image)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    if lossless or max(height, width) <= SMALL_SIDE:
        kind = "png"
        picture.save(data, "PNG", optimize=True)
    else:
        kind = "jpeg"
        picture.save(data, "JPEG", quality=93, subsampling=0)
    text = base64.b64encode(data.getvalue()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{text}">'


def frame(shape: tuple[int, ...], content: str, kind: str = "") -> str:
    height, width = shape[:2]
    square = " square" if max(height, width) <= SMALL_SIDE else ""
    style = f"--ar:{width / height:.4f};--x:50%"
    return f'<div class="frame{square} {kind}" style="{style}">{content}</div>'


def error_scale(error: npt.NDArray[np.floating], tolerance: float | None) -> str:
    """SVG of the histogram of |error| [H,W] by decade above the colour bar of the heat map.

    Ticks are absolute and in units of 1/255; `tolerance` (absolute) is a dashed line.
    """
    counts = decade_histogram(error)
    # Pixels per decade, y of the colour bar, and log10 of the error at x = 50.
    step, base, low = 50, 84, math.log10(DECADES[0])
    parts = []
    for i, count in enumerate(counts):
        if count:
            size = max(2.0, 62 * count / error.size)
            label = f"{count / error.size:.1%}" if count * 1000 >= error.size else f"{count} px"
            parts.append(
                f'<rect class="bar" x="{i * step + 3}" y="{base - size:.1f}" width="{step - 6}" '
                f'height="{size:.1f}"/><text x="{(i + 0.5) * step}" y="{base - size - 5:.1f}" '
                f'text-anchor="middle">{label}</text>'
            )
    stops = "".join(
        f'<stop offset="{(i + 1) / len(counts):.2f}" stop-color="{colour}"/>'
        for i, colour in enumerate(COLOURS)
    )
    ticks = '<text x="0" y="113">abs.</text><text x="0" y="127">/255</text>'
    for i, edge in enumerate(DECADES):
        levels = f"{255 * edge:.1e}".replace("e-0", "e-") if edge < 1e-5 else f"{255 * edge:.3g}"
        absolute = f"{edge:.0e}".replace("e-0", "e-") if edge < 1 else "1"
        ticks += "".join(
            f'<text x="{(i + 1) * step}" y="{y}" text-anchor="middle">{label}</text>'
            for y, label in ((113, absolute), (127, levels))
        )
    line = ""
    if tolerance is not None and tolerance > 0:
        x = min(max(step * (1 + math.log10(tolerance) - low), 0), 500)
        line = f'<path class="limit" d="M{x:.1f} 0V{base + 14}"/>'
        line += f'<text class="limit-text" x="{x + 4:.1f}" y="9">tolerance</text>'
    return (
        '<svg class="scale" viewBox="0 0 500 132" role="img" aria-label="histogram of errors">'
        f'<defs><linearGradient id="heat">{stops}</linearGradient></defs>{"".join(parts)}'
        f'<rect x="0" y="{base}" width="500" height="14" fill="url(#heat)"/>{ticks}{line}</svg>'
    )


def layer_curve(report: ParityReport, tolerance: float | None) -> str:
    """SVG of the relative RMS error against the layer index on a logarithmic scale; zero is at the
    bottom and NaN at the top."""
    layers = report.layers
    bounds = [layer.rms_rel for layer in layers] + ([] if tolerance is None else [tolerance])
    known = [math.log10(v) for v in bounds if math.isfinite(v) and v > 0] or [0.0]
    low, high = math.floor(min(known) - 0.05), math.ceil(max(known) + 0.05)
    left, right, top, bottom = 56, 884, 24, 270

    def x_of(index: int) -> float:
        return left + (right - left) * (index + 0.5) / len(layers)

    def y_of(value: float) -> float:
        if value > 0:
            level = (math.log10(value) if math.isfinite(value) else high) - low
        else:
            level = high - low if math.isnan(value) else 0
        return bottom - (bottom - top) * level / (high - low)

    parts = []
    for power in range(low, high + 1, max(1, (high - low) // 8)):
        y = y_of(10.0**power)
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
    if tolerance is not None and tolerance > 0:
        y = y_of(tolerance)
        parts.append(f'<path class="limit" d="M{left} {y:.1f}H{right}"/>')
        parts.append(f'<text class="limit-text" x="{left + 4}" y="{y - 5:.1f}">tolerance</text>')
    points = " ".join(f"{x_of(i):.1f},{y_of(layer.rms_rel):.1f}" for i, layer in enumerate(layers))
    parts.append(f'<polyline points="{points}"/>')
    for i, layer in enumerate(layers):
        parts.append(_layer_point(layer, x_of(i), y_of(layer.rms_rel), report.first_diverged))
    for i in sorted({0, len(layers) // 2, len(layers) - 1}):
        parts.append(f'<text x="{x_of(i):.1f}" y="288" text-anchor="middle">{i}</text>')
    return (
        '<svg class="curve" viewBox="0 0 900 296" role="img" aria-label="error by layer">'
        f"{''.join(parts)}</svg>"
    )


def _layer_point(layer: LayerError, x: float, y: float, first: str | None) -> str:
    name = escape(shown(layer.name))
    title = f"{name}: relative RMS {error_text(layer.rms_rel)}, max {error_text(layer.max_abs)}"
    state = ' class="bad"' if layer.diverged else ""
    point = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"{state}><title>{title}</title></circle>'
    if layer.name == first:
        anchor, shift = ("end", -12) if x > 450 else ("start", 12)
        point += f'<circle class="first" cx="{x:.1f}" cy="{y:.1f}" r="8"/>'
        point += f'<text class="limit-text" x="{x + shift:.1f}" y="{y + 4:.1f}" '
        point += f'text-anchor="{anchor}">{name}</text>'
    return point
