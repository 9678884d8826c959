"""A contact sheet as one image: random classes, a row of samples of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw

from pipeline.show.facts import plural
from pipeline.show.fonts import Font, load_font
from pipeline.show.stored_images import shrink_image
from pipeline.show.strips import ClassStrip, DatasetChapter

SHEET_TILE: Final = 96  # pixels, as are all these
SHEET_GAP: Final = 4
ROW_GAP: Final = 10
MARGIN: Final = 32
LABEL_WIDTH: Final = 216  # a class's name
HEADING_HEIGHT: Final = 84  # a dataset's name, and the space below its rows
HEADING_GAP: Final = 28  # of these, below the rows
USER_HEIGHT: Final = 44  # a user's name
PAPER_COLOUR: Final = "#ffffff"
TEXT_COLOUR: Final = "#1d2026"
SOFT_COLOUR: Final = "#646974"
SPLIT_COLOURS: Final = {"train": "#3a6fb5", "validation": "#d98b2b", "test": "#3d9270"}
EDGE_COLOUR: Final = "#dcdcd8"
NO_SPLIT_COLOUR: Final = "#8b909a"
DOT_RADIUS: Final = 4


@dataclass(frozen=True, slots=True)
class SheetFonts:
    """The fonts of a sheet."""

    heading: Font
    name: Font
    small: Font

    @classmethod
    def load(cls) -> SheetFonts:
        return cls(*(load_font(size) for size in (24, 15, 12)))


def contact_sheet(chapters: Sequence[DatasetChapter]) -> Image.Image:
    """Draw all datasets below one another."""
    fonts = SheetFonts.load()
    columns = max((len(s.rows) for chapter in chapters for s in chapter.strips), default=0)
    width = 2 * MARGIN + LABEL_WIDTH + columns * (SHEET_TILE + SHEET_GAP) - SHEET_GAP
    height = 2 * MARGIN - HEADING_GAP + sum(_chapter_height(chapter) for chapter in chapters)
    sheet = Image.new("RGB", (width, height), PAPER_COLOUR)
    top = MARGIN
    for chapter in chapters:
        _draw_chapter(sheet, chapter, top, fonts)
        top += _chapter_height(chapter)
    return sheet


def _starts_user(strips: Sequence[ClassStrip], place: int) -> bool:
    """Whether the objects of another user begin here."""
    before = strips[place - 1].user if place else ""
    return strips[place].user not in ("", before)


def _continues_class(strips: Sequence[ClassStrip], place: int) -> bool:
    """Whether this is another row of the class above."""
    return place > 0 and strips[place - 1].class_id == strips[place].class_id


def _space_above(strips: Sequence[ClassStrip], place: int) -> int:
    """Pixels above a row."""
    if _continues_class(strips, place):
        return SHEET_GAP
    return USER_HEIGHT if _starts_user(strips, place) else ROW_GAP


def _chapter_height(chapter: DatasetChapter) -> int:
    strips = chapter.strips
    return HEADING_HEIGHT + sum(SHEET_TILE + _space_above(strips, place) for place in range(len(strips)))


def _draw_chapter(sheet: Image.Image, chapter: DatasetChapter, top: int, fonts: SheetFonts) -> None:
    pen = ImageDraw.Draw(sheet)
    facts, strips = chapter.facts, chapter.strips
    pen.text((MARGIN, top), facts.name, TEXT_COLOUR, fonts.heading)
    about = (
        f"{plural(facts.classes, 'class')}, {plural(facts.samples, 'picture')}; shown from {chapter.size} px"
    )
    pen.text((MARGIN, top + 34), about, SOFT_COLOUR, fonts.small)
    top += HEADING_HEIGHT - HEADING_GAP
    for place, strip in enumerate(strips):
        top += _space_above(strips, place)
        if _starts_user(strips, place):
            pen.text((MARGIN, top - 12), strip.user, TEXT_COLOUR, fonts.name, anchor="ls")
        about = ", ".join(filter(None, (strip.split, strip.kind, plural(strip.samples, "picture"))))
        name = "" if _continues_class(strips, place) else strip.class_name
        draw_label(pen, fonts, top + SHEET_TILE // 2 - 8, about, name, strip.split)
        left = MARGIN + LABEL_WIDTH
        for image in chapter.read_images(strip):
            tile = shrink_image(image, SHEET_TILE)
            x = left + (SHEET_TILE - tile.width) // 2
            sheet.paste(tile, (x, top))
            box = (x, top, x + tile.width - 1, top + tile.height - 1)
            pen.rectangle(box, outline=EDGE_COLOUR)
            left += SHEET_TILE + SHEET_GAP
        top += SHEET_TILE


def draw_label(
    pen: ImageDraw.ImageDraw, fonts: SheetFonts, centre: int, about: str, name: str, split: str
) -> None:
    """Draw a class's name beside its row, with a dot for its split, and its numbers below."""
    left = MARGIN + 4 * DOT_RADIUS
    pen.text((left, centre + 20), about, SOFT_COLOUR, fonts.small, anchor="lm")
    if name:
        dot = (MARGIN, centre - DOT_RADIUS, MARGIN + 2 * DOT_RADIUS, centre + DOT_RADIUS)
        pen.ellipse(dot, fill=SPLIT_COLOURS.get(split, NO_SPLIT_COLOUR))
        name = elide_middle(pen, name, LABEL_WIDTH - 6 * DOT_RADIUS, fonts.name)
        pen.text((left, centre), name, TEXT_COLOUR, fonts.name, anchor="lm")


def elide_middle(pen: ImageDraw.ImageDraw, text: str, width: int, font: Font) -> str:
    """Shorten a text to a width in pixels by leaving out its middle."""
    keep = len(text)
    short = text
    while keep > 1 and pen.textlength(short, font) > width:
        keep -= 1
        short = f"{text[: (keep + 1) // 2]}...{text[len(text) - keep // 2 :]}"
    return short
