"""Motion during an exposure. Time s runs from -1 (shutter opens) over 0 (middle) to 1 (closes).

Objects follow the parabola that M2AENet assumes (Shang et al. 2025): o(s) = a s + b s^2, nothing
at the middle, plus a slight turn and zoom. A shaking camera follows a smooth spline through random
points (in the spirit of Boracchi and Foi 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ObjectMotion:
    """Motion of a rigid layer.

    `linear` a and `bend` b are (x, y) in pixels; `turn` (radians) and `zoom` are what the layer
    turns and grows about `centre` (x, y) between s = 0 and s = 1.
    """

    linear: tuple[float, float]
    bend: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    zoom: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)

    @property
    def extent(self) -> float:
        """Distance in pixels between the first and the last position, without turn and zoom."""
        return 2 * math.hypot(*self.linear)

    def matrix(self, s: float) -> Floats:
        """[2, 3]: where a point (x, y, 1) of the middle of the exposure is at time s."""
        scale, angle = 1 + self.zoom * s, self.turn * s
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        x, y = self.centre
        dx, dy = (a * s + b * s * s for a, b in zip(self.linear, self.bend, strict=True))
        return np.array(
            [[cos, -sin, x - cos * x + sin * y + dx], [sin, cos, y - sin * x - cos * y + dy]]
        )

    def displacement(self) -> Floats:
        """[2, 3]: from a point (x, y, 1) of the middle to its way (dx, dy) over the exposure."""
        return self.matrix(1.0) - self.matrix(-1.0)


def random_motion(
    rng: np.random.Generator, extent: float, centre: tuple[float, float], radius: float
) -> ObjectMotion:
    """A motion of that extent in any direction; half of them bend, half turn and zoom slightly.

    Turn and zoom together move a point at `radius` pixels from the centre by less than 0.6 times
    the extent, so that no part of the object rests.
    """
    angle = rng.uniform(0, 2 * math.pi)
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    bend = np.zeros(2)
    if rng.random() < 0.5:
        bend = extent * (rng.uniform(-0.2, 0.2) * across + rng.uniform(-0.08, 0.08) * along)
    most = min(0.03, 0.2 * extent / radius)
    turn, zoom = rng.uniform(-most, most, 2) if rng.random() < 0.5 else (0.0, 0.0)
    a, b = along * extent / 2, bend
    return ObjectMotion((a[0], a[1]), (b[0], b[1]), float(turn), float(zoom), centre)


def moments(count: int) -> Floats:
    """The middles of `count` equal parts of the exposure."""
    return np.asarray((2 * np.arange(count) + 1) / count - 1)


def shake(rng: np.random.Generator, extent: float) -> Floats:
    """The way of a shaking camera's image [n, 2], (x, y) in pixels, about four points a pixel.

    A Catmull-Rom spline through a random walk with inertia. Its widest distance is `extent`, its
    mean is 0: where it starts cannot be told from the blur, so the sharp image sits at the mean.
    """
    way = _spline(np.cumsum(_velocities(rng, count=int(rng.integers(4, 8))), axis=0))
    span = np.linalg.norm(way[:, None] - way[None], axis=-1).max()
    return np.asarray((way - way.mean(0)) * (extent / span))


def _velocities(rng: np.random.Generator, count: int) -> Floats:
    """[count, 2]: a start velocity, and changes to it, sometimes a jerk."""
    velocity = rng.normal(size=2)
    steps = [velocity]
    for _ in range(count - 1):
        jerk = 2.0 if rng.random() < 0.15 else 0.6
        velocity = 0.8 * velocity + jerk * rng.normal(size=2)
        steps.append(velocity)
    return np.stack(steps)


def _spline(points: Floats, steps: int = 40) -> Floats:
    """Catmull-Rom through `points` [k, 2] -> [(k - 1) * steps, 2]."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = (np.arange(steps) / steps)[:, None]
    parts = []
    for p0, p1, p2, p3 in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        tangent, other = (p2 - p0) / 2, (p3 - p1) / 2
        parts.append(
            (2 * t**3 - 3 * t**2 + 1) * p1
            + (t**3 - 2 * t**2 + t) * tangent
            + (3 * t**2 - 2 * t**3) * p2
            + (t**3 - t**2) * other
        )
    return np.concatenate(parts)


def kernel(way: Floats) -> NDArray[np.float32]:
    """Share of the exposure spent at each displacement: odd square [k, k], sum 1, centre (0, 0).

    Every point of `way` [n, 2] counts the same and is shared by the four pixels around it.
    """
    radius = math.ceil(np.abs(way).max()) + 1
    out = np.zeros((2 * radius + 1, 2 * radius + 1))
    low = np.floor(way).astype(int)
    x, y = (way - low).T
    for dy, wy in ((0, 1 - y), (1, y)):
        for dx, wx in ((0, 1 - x), (1, x)):
            np.add.at(out, (low[:, 1] + dy + radius, low[:, 0] + dx + radius), wx * wy)
    return np.asarray(out / out.sum(), dtype=np.float32)
