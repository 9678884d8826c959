"""A contact sheet as one picture: random classes, a row of samples of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from PIL import Image, ImageDraw, ImageFont

from pipeline.show.facts import plural
from pipeline.show.page import Chapter
from pipeline.show.pictures import reduced, stored
from pipeline.show.strips import Strip

TILE: Final = 96  # pixels
GAP: Final = 4
ROW_GAP: Final = 10
MARGIN: Final = 32
LABEL: Final = 216  # pixels for a class's name
HEADING: Final = 84  # pixels for a dataset's name, and the space below its rows
TAIL: Final = 28  # of these, below
USER: Final = 44
PAPER: Final = "#ffffff"
INK: Final = "#1d2026"
SOFT: Final = "#646974"
COLOURS: Final = {"train": "#3a6fb5", "validation": "#d98b2b", "test": "#3d9270"}
EDGE: Final = "#dcdcd8"
NEUTRAL: Final = "#8b909a"
DOT: Final = 4  # pixels, radius


Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Fonts:
    """The type on the sheet."""

    heading: Font
    name: Font
    small: Font

    @classmethod
    def load(cls) -> Fonts:
        return cls(*(ImageFont.load_default(size) for size in (24, 15, 12)))


def contact_sheet(chapters: Sequence[Chapter]) -> Image.Image:
    """All datasets below one another."""
    fonts = Fonts.load()
    columns = max((len(s.rows) for chapter in chapters for s in chapter.strips), default=0)
    width = 2 * MARGIN + LABEL + columns * (TILE + GAP) - GAP
    height = 2 * MARGIN - TAIL + sum(_height(chapter) for chapter in chapters)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen, top = ImageDraw.Draw(sheet), MARGIN
    for chapter in chapters:
        _draw(sheet, pen, chapter, top, fonts)
        top += _height(chapter)
    return sheet


def _opens(strips: Sequence[Strip], place: int) -> bool:
    """Whether a new user's objects begin here."""
    before = strips[place - 1].user if place else ""
    return strips[place].user not in ("", before)


def _goes_on(strips: Sequence[Strip], place: int) -> bool:
    """Whether this is another row of the class above."""
    return place > 0 and strips[place - 1].class_id == strips[place].class_id


def _lead(strips: Sequence[Strip], place: int) -> int:
    """Pixels above a row."""
    if _goes_on(strips, place):
        return GAP
    return USER if _opens(strips, place) else ROW_GAP


def _height(chapter: Chapter) -> int:
    strips = chapter.strips
    return HEADING + sum(TILE + _lead(strips, place) for place in range(len(strips)))


def _draw(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, chapter: Chapter, top: int, fonts: Fonts
) -> None:
    facts, strips = chapter.facts, chapter.strips
    pen.text((MARGIN, top), facts.name, INK, fonts.heading)
    about = (
        f"{plural(facts.classes, 'class')}, {plural(facts.samples, 'picture')}; "
        f"shown from {chapter.size} px"
    )
    pen.text((MARGIN, top + 34), about, SOFT, fonts.small)
    top += HEADING - TAIL
    for place, strip in enumerate(strips):
        top += _lead(strips, place)
        if _opens(strips, place):
            pen.text((MARGIN, top - 12), strip.user, INK, fonts.name, anchor="ls")
        _draw_label(pen, strip, top, fonts, again=_goes_on(strips, place))
        for column, row in enumerate(strip.rows):
            picture = reduced(stored(chapter.dataset, chapter.size, row), TILE)
            left = MARGIN + LABEL + column * (TILE + GAP) + (TILE - picture.width) // 2
            sheet.paste(picture, (left, top))
            right, lower = left + picture.width - 1, top + picture.height - 1
            pen.rectangle((left, top, right, lower), outline=EDGE)
        top += TILE


def _draw_label(
    pen: ImageDraw.ImageDraw, strip: Strip, top: int, fonts: Fonts, *, again: bool
) -> None:
    about = ", ".join(filter(None, (strip.split, strip.kind, plural(strip.samples, "picture"))))
    left, centre = MARGIN + 4 * DOT, top + TILE // 2 - 8
    pen.text((left, centre + 20), about, SOFT, fonts.small, anchor="lm")
    if again:
        return
    colour = COLOURS.get(strip.split, NEUTRAL)
    pen.ellipse((MARGIN, centre - DOT, MARGIN + 2 * DOT, centre + DOT), fill=colour)
    name = fitting(pen, strip.class_name, LABEL - 6 * DOT, fonts.name)
    pen.text((left, centre), name, INK, fonts.name, anchor="lm")


def fitting(pen: ImageDraw.ImageDraw, text: str, width: int, font: Font) -> str:
    """The text, its middle left out if it is too long."""
    keep = len(text)
    short = text
    while keep > 1 and pen.textlength(short, font) > width:
        keep -= 1
        short = f"{text[: (keep + 1) // 2]}...{text[len(text) - keep // 2 :]}"
    return short
