"""Images for a comparison have the shapes that a file takes."""

from __future__ import annotations

import pytest

from deblur_export.export.images.cases import random_cases

Shape = tuple[int | str, ...]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (("batch", 3, "height", "width"), [(1, 3, 64, 96), (2, 3, 33, 47)]),
        ((1, 1, "height", "width"), [(1, 1, 64, 96), (1, 1, 33, 47)]),
        (("batch", 4, 32, 48), [(1, 4, 32, 48), (2, 4, 32, 48)]),
        ((3, 3, 32, 48), [(3, 3, 32, 48), (3, 3, 32, 48)]),
    ],
)
def test_random_images(shape: Shape, expected: list[Shape]) -> None:
    """A batch that is fixed stays, where height and width are free as well."""
    shapes = [case.image.shape for case in random_cases(shape)]
    assert shapes[:2] == expected


def test_a_window_adds_a_larger_image() -> None:
    shapes = [case.image.shape for case in random_cases(("batch", 3, "height", "width"), 64)]
    assert shapes[-1] == (1, 3, 73, 105)
