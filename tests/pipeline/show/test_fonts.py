"""Text on sheets where Pillow was built without FreeType."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw, features

from pipeline.show.fonts import BitmapFont, load_font


@pytest.mark.parametrize(
    ("anchor", "sides"),
    [("la", (True, True)), ("rs", (False, False)), ("ls", (True, False)), (None, (True, True))],
)
def test_letters_lie_on_the_side_of_the_anchor_that_it_names(
    anchor: str | None, sides: tuple[bool, bool]
) -> None:
    sheet = Image.new("L", (200, 100))
    ImageDraw.Draw(sheet).text((100, 50), "owl", 255, BitmapFont(), anchor=anchor)
    box = sheet.getbbox()
    assert box is not None
    left, upper, right, lower = box
    assert ((left >= 100, upper >= 50), (right > 100, lower > 50)) == (sides, sides)


def test_letters_beyond_latin_are_replaced_and_have_a_length() -> None:
    font, pen = BitmapFont(), ImageDraw.Draw(Image.new("L", (200, 100)))
    assert pen.textlength("ふくろう", font) == pen.textlength("????", font) > 0
    pen.text((100, 50), "ふくろう", 255, font, anchor="mm")


def test_the_bitmap_font_is_taken_where_there_is_no_freetype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda _: False)
    assert isinstance(load_font(12), BitmapFont)
