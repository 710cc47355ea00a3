"""The demo weights come with their licence, and with credits for every photo behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deblur_export.models.checkpoint import DEMO_FOLDER
from deblur_export.models.training.data.credits import LICENCES, credits_page
from deblur_export.models.training.data.photo_table import PHOTOS


def test_credits_are_those_of_the_table() -> None:
    assert (DEMO_FOLDER / "CREDITS.md").read_text(encoding="utf-8") == credits_page()


def test_every_photo_is_under_a_licence_that_allows_derivatives() -> None:
    assert {photo.licence for photo in PHOTOS} <= set(LICENCES)
    assert not [url for url in LICENCES.values() if "-nd" in url or "-nc" in url]


def test_folder_holds_the_licence() -> None:
    text = (DEMO_FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("Attribution-ShareAlike 4.0 International")


@pytest.mark.parametrize("card", sorted(DEMO_FOLDER.glob("*_*.md")), ids=lambda path: path.stem)
def test_card_names_licence_and_credits(card: Path) -> None:
    text = card.read_text(encoding="utf-8")
    assert "CC-BY-SA-4.0" in text.rpartition("**Licence.**")[2] and "CREDITS.md" in text
