"""Motion during an exposure. Time s runs from -1 (shutter opens) over 0 (middle) to 1 (closes).

Objects follow the parabola that M2AENet assumes (Shang et al. 2025), o(s) = a s + b s^2, which is
zero at the middle, with a slight rotation and zoom. A shaking camera follows a smooth spline
through random points (in the spirit of Boracchi and Foi 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ObjectMotion:
    """Motion of a layer by translation, rotation and zoom.

    Attributes:
        linear, bend: a and b of the parabola, (x, y) in pixels.
        rotation: angle in radians by which the layer rotates about `centre` from s = 0 to s = 1.
        zoom: fraction by which the layer grows about `centre` from s = 0 to s = 1.
        centre: (x, y) in pixels.
    """

    linear: tuple[float, float]
    bend: tuple[float, float] = (0.0, 0.0)
    rotation: float = 0.0
    zoom: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)

    @property
    def extent(self) -> float:
        """Distance in pixels between first and last position, without rotation and zoom."""
        return 2 * math.hypot(*self.linear)

    def matrix(self, s: float) -> Floats:
        """Affine matrix [2, 3] from a point (x, y, 1) at s = 0 to its position (x, y) at time s."""
        scale, angle = 1 + self.zoom * s, self.rotation * s
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        x, y = self.centre
        dx, dy = (a * s + b * s * s for a, b in zip(self.linear, self.bend, strict=True))
        return np.array(
            [[cos, -sin, x - cos * x + sin * y + dx], [sin, cos, y - sin * x - cos * y + dy]]
        )

    def displacement(self) -> Floats:
        """Affine matrix [2, 3] from a point (x, y, 1) at s = 0 to its displacement (dx, dy) in
        pixels over the exposure."""
        return self.matrix(1.0) - self.matrix(-1.0)


def random_motion(
    rng: np.random.Generator, extent: float, centre: tuple[float, float], radius: float
) -> ObjectMotion:
    """Draw a motion in a random direction.

    With probability 0.5 its path is bent, and with probability 0.5 the object rotates and zooms
    slightly. Rotation and zoom together move a point at `radius` pixels from the centre by less
    than 0.6 times the extent, so that no part of the object stands still.

    Args:
        rng: everything random comes from it.
        extent: length of the motion in pixels; see `ObjectMotion.extent`.
        centre: (x, y) of the object in pixels.
        radius: of the object, in pixels.
    """
    angle = rng.uniform(0, 2 * math.pi)
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    bend = np.zeros(2)
    if rng.random() < 0.5:
        bend = extent * (rng.uniform(-0.2, 0.2) * across + rng.uniform(-0.08, 0.08) * along)
    most = min(0.03, 0.2 * extent / radius)
    rotation, zoom = rng.uniform(-most, most, 2) if rng.random() < 0.5 else (0.0, 0.0)
    a, b = along * extent / 2, bend
    return ObjectMotion((a[0], a[1]), (b[0], b[1]), float(rotation), float(zoom), centre)


def moments(count: int) -> Floats:
    """The midpoints of `count` equal intervals of the exposure, [count] in -1..1."""
    return np.asarray((2 * np.arange(count) + 1) / count - 1)


def shake(rng: np.random.Generator, extent: float) -> Floats:
    """Draw the path of the image of a shaking camera.

    It is a Catmull-Rom spline through a random walk with inertia. Its mean is 0: the blur does not
    tell where the path starts, so the sharp image is at the mean.

    Args:
        rng: everything random comes from it.
        extent: largest distance between two points of the path in pixels.

    Returns:
        [n, 2], displacement (x, y) in pixels at equal steps of time, about four points per pixel.
    """
    path = _spline(np.cumsum(_velocities(rng, count=int(rng.integers(4, 8))), axis=0))
    span = np.linalg.norm(path[:, None] - path[None], axis=-1).max()
    return np.asarray((path - path.mean(0)) * (extent / span))


def _velocities(rng: np.random.Generator, count: int) -> Floats:
    """Velocities [count, 2]; they change at random from step to step, sometimes abruptly."""
    velocity = rng.normal(size=2)
    steps = [velocity]
    for _ in range(count - 1):
        jerk = 2.0 if rng.random() < 0.15 else 0.6
        velocity = 0.8 * velocity + jerk * rng.normal(size=2)
        steps.append(velocity)
    return np.stack(steps)


def _spline(points: Floats, steps: int = 40) -> Floats:
    """Sample the Catmull-Rom spline through `points` [k, 2]; returns [(k - 1) * steps, 2]."""
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


def kernel(path: Floats) -> NDArray[np.float32]:
    """The blur kernel of a path: the fraction of the exposure spent at each displacement.

    Every point of the path has the same weight, distributed bilinearly over the four pixels around
    it.

    Args:
        path: [n, 2], displacement (x, y) in pixels.

    Returns:
        float32 [k, k] with odd k; the centre is displacement (0, 0), and the sum is 1.
    """
    radius = math.ceil(np.abs(path).max()) + 1
    out = np.zeros((2 * radius + 1, 2 * radius + 1))
    low = np.floor(path).astype(int)
    x, y = (path - low).T
    for dy, wy in ((0, 1 - y), (1, y)):
        for dx, wx in ((0, 1 - x), (1, x)):
            np.add.at(out, (low[:, 1] + dy + radius, low[:, 0] + dx + radius), wx * wy)
    return np.asarray(out / out.sum(), dtype=np.float32)
