"""The contact sheet of one episode: a lane for each class, support left, queries right, H framed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from pipeline.errors import IntegrityError
from pipeline.show.episode import EpisodeView, Lane, Strip
from pipeline.show.facts import plural
from pipeline.show.pictures import DECODE_ERRORS, decoded
from pipeline.show.sheet import (
    COLOURS,
    DOT,
    EDGE,
    INK,
    LABEL,
    MARGIN,
    NEUTRAL,
    PAPER,
    SOFT,
    Fonts,
    fitting,
)
from pipeline.store.local import Store, spots_of

GAP: Final = 8  # pixels between pictures; two frames of H fit into it
FRAME: Final = 3  # pixels, of H's frame
GUTTER: Final = 40  # between support and queries
LANE_GAP: Final = 20
STRIP_GAP: Final = 10
CAPTION: Final = 20  # above a video's frames
TOP: Final = 112  # for title, numbers and the columns' names
NARROWEST: Final = 760  # a title must fit
TILES: Final = ((12, 96), (30, 72))  # with up to so many lines, pictures of so many pixels
SMALL_TILE: Final = 56
LANES: Final = 60  # classes drawn; Meta-Dataset's episodes have up to 50, VTAB's tasks hundreds
H_COLOUR: Final = "#d6336c"
BLANK: Final = "#f1f1ee"


@dataclass(frozen=True, slots=True)
class Sheet:
    """The canvas, and what everything drawn on it needs."""

    canvas: Image.Image
    pen: ImageDraw.ImageDraw
    fonts: Fonts
    tile: int
    pictures: Mapping[int, Image.Image]
    """By row, as large as they are drawn."""


def episode_sheet(view: EpisodeView, store: Store, size: int) -> Image.Image:
    """Draw an episode from the pictures stored at `size`. Raises IntegrityError if one is damaged."""
    more = len(view.lanes) - LANES
    view = replace(view, lanes=view.lanes[:LANES])
    tile = _tile(view)
    support_width, query_width = (
        columns * (tile + GAP) - GAP for columns in (view.support_columns, view.query_columns)
    )
    lefts = (MARGIN + LABEL, MARGIN + LABEL + support_width + GUTTER)
    width = max(lefts[1] + query_width, NARROWEST - MARGIN) + MARGIN
    heights = [_lane_height(view, lane, tile) + LANE_GAP for lane in view.lanes]
    height = TOP + sum(heights) + MARGIN + (CAPTION if more > 0 else 0)
    canvas = Image.new("RGB", (width, height), PAPER)
    pictures = _pictures(view, store, size, tile)
    sheet = Sheet(canvas, ImageDraw.Draw(canvas), Fonts.load(), tile, pictures)
    _draw_top(sheet, view, lefts)
    top = TOP + LANE_GAP
    for lane, lane_height in zip(view.lanes, heights, strict=True):
        _draw_label(sheet, view, lane, top)
        for strips, columns, left in zip(
            (lane.support, lane.query),
            (view.support_columns, view.query_columns),
            lefts,
            strict=True,
        ):
            _draw_side(sheet, strips, columns, (left, top))
        top += lane_height
    if more > 0:
        sheet.pen.text((MARGIN, top), f"and {plural(more, 'more class')}", SOFT, sheet.fonts.name)
    return canvas


def _tile(view: EpisodeView) -> int:
    """Pixels of a picture: the more lines, the smaller."""
    columns = (view.support_columns, view.query_columns)
    lines = sum(
        max(
            sum(_lines(strip, width) for strip in strips)
            for strips, width in zip((lane.support, lane.query), columns, strict=True)
        )
        for lane in view.lanes
    )
    return next((tile for most, tile in TILES if lines <= most), SMALL_TILE)


def _lines(strip: Strip, columns: int) -> int:
    """Rows of pictures in a strip; the note about what is not drawn has a picture's place."""
    if strip.title:
        return 1
    return -(-(len(strip.tiles) + bool(strip.tiles and strip.note)) // max(columns, 1))


def _strip_height(strip: Strip, columns: int, tile: int) -> int:
    lines = _lines(strip, columns)
    pictures = lines * (tile + GAP) - GAP if lines else 0
    return pictures + (CAPTION if strip.title or not strip.tiles else 0)


def _lane_height(view: EpisodeView, lane: Lane, tile: int) -> int:
    columns = (view.support_columns, view.query_columns)
    return max(
        sum(_strip_height(strip, width, tile) + STRIP_GAP for strip in strips) - STRIP_GAP
        for strips, width in zip((lane.support, lane.query), columns, strict=True)
    )


def _pictures(view: EpisodeView, store: Store, size: int, tile: int) -> dict[int, Image.Image]:
    """All that are drawn; of a remote set only these are fetched, many at once."""
    strips = [strip for lane in view.lanes for strip in (*lane.support, *lane.query)]
    rows = sorted({tile.row for strip in strips for tile in strip.tiles})
    spots = spots_of(view.dataset, size, np.array(rows, np.int64))
    store.prefetch(spots)
    pictures = {}
    for at, row in enumerate(rows):
        data = bytearray(spots.lengths[at])
        store.read(spots, at, [memoryview(data)])
        try:
            picture = decoded(bytes(data))
        except DECODE_ERRORS as error:
            raise IntegrityError(
                f"{spots.name(at)} cannot be decoded ({error}); python -m pipeline.verify "
                f"{view.dataset.root} says what else is damaged and mends it"
            ) from error
        pictures[row] = picture.resize((tile, tile), Image.Resampling.LANCZOS)
    return pictures


def _draw_top(sheet: Sheet, view: EpisodeView, lefts: tuple[int, int]) -> None:
    plan, pen, fonts = view.plan, sheet.pen, sheet.fonts
    pen.text((MARGIN, MARGIN), title(view), INK, fonts.heading)
    users = sorted({lane.user for lane in view.lanes} - {""})
    parts = [
        f"episode {plan.number:,}",
        view.splits,
        f"user {users[0]}" if len(users) == 1 else plural(len(users), "user") if users else "",
        plan.digest[:12],
    ]
    pen.text((MARGIN, MARGIN + 34), ", ".join(filter(None, parts)), SOFT, fonts.small)
    in_h = f"support: {len(plan.support):,}, of which {len(view.h):,} in H"
    names = (in_h, f"queries: {len(plan.query):,}")
    for name, left in zip(names, lefts, strict=True):
        pen.text((left, TOP - 6), name, SOFT, fonts.small, anchor="ls")
    if len(view.h):
        left = lefts[0] + int(pen.textlength(in_h, fonts.small)) + 10
        pen.rectangle((left, TOP - 16, left + 11, TOP - 5), outline=H_COLOUR, width=FRAME)
    pen.line((MARGIN, TOP + 4, sheet.canvas.width - MARGIN, TOP + 4), EDGE)


def title(view: EpisodeView) -> str:
    """Dataset, way and shots."""
    shots = view.plan.shots
    unit = "frame" if view.videos else "shot"
    low, high = int(shots.min()), int(shots.max())
    spread = plural(high, unit) if low == high else f"{low:,} to {plural(high, unit)}"
    return f"{view.plan.dataset}, {view.plan.way}-way, {spread}"


def _draw_label(sheet: Sheet, view: EpisodeView, lane: Lane, top: int) -> None:
    """The class's name and its numbers, beside its first row of pictures."""
    pen, fonts = sheet.pen, sheet.fonts
    centre = top + sheet.tile // 2 - 8 + (CAPTION if view.videos else 0)
    colour = COLOURS.get(lane.split, NEUTRAL)
    pen.ellipse((MARGIN, centre - DOT, MARGIN + 2 * DOT, centre + DOT), fill=colour)
    left = MARGIN + 4 * DOT
    name = fitting(pen, lane.name, LABEL - 6 * DOT, fonts.name)
    pen.text((left, centre), name, INK, fonts.name, anchor="lm")
    unit = "frame" if view.videos else "shot"
    about = f"{plural(lane.shots, unit)}, {lane.in_h:,} in H"
    pen.text((left, centre + 20), about, SOFT, fonts.small, anchor="lm")


def _draw_side(
    sheet: Sheet, strips: tuple[Strip, ...], columns: int, corner: tuple[int, int]
) -> None:
    left, top = corner
    for strip in strips:
        if strip.title or not strip.tiles:
            _draw_caption(sheet, strip, columns, (left, top))
        if strip.title:
            _draw_frames(sheet, strip, (left, top + CAPTION))
        else:
            _draw_stills(sheet, strip, columns, (left, top))
        top += _strip_height(strip, columns, sheet.tile) + STRIP_GAP


def _draw_caption(sheet: Sheet, strip: Strip, columns: int, corner: tuple[int, int]) -> None:
    """A video's name, and how much of it is not shown."""
    (left, top), pen, font = corner, sheet.pen, sheet.fonts.small
    width = columns * (sheet.tile + GAP) - GAP - int(pen.textlength(strip.note, font))
    name = fitting(pen, strip.title, width - 2 * GAP, font)
    pen.text((left, top + CAPTION - 8), name, INK, font, anchor="ls")
    side = left + int(pen.textlength(f"{name}   ", font)) if name else left
    pen.text((side, top + CAPTION - 8), strip.note, SOFT, font, anchor="ls")


def _draw_frames(sheet: Sheet, strip: Strip, corner: tuple[int, int]) -> None:
    """Frames touch as on a film; one line surrounds those in H that follow one another."""
    left, top = corner
    for in_h, group in groupby(strip.tiles, attrgetter("in_h")):
        begin = left
        for tile in group:
            sheet.canvas.paste(sheet.pictures[tile.row], (left, top))
            left += sheet.tile
        if in_h:
            _draw_frame(sheet, begin, top, left - begin)


def _draw_stills(sheet: Sheet, strip: Strip, columns: int, corner: tuple[int, int]) -> None:
    step = sheet.tile + GAP
    corners = [
        (corner[0] + place % columns * step, corner[1] + place // columns * step)
        for place in range(len(strip.tiles) + 1)
    ]
    for tile, (left, top) in zip(strip.tiles, corners, strict=False):
        sheet.canvas.paste(sheet.pictures[tile.row], (left, top))
        right, lower = left + sheet.tile - 1, top + sheet.tile - 1
        sheet.pen.rectangle((left, top, right, lower), outline=EDGE)
        if tile.in_h:
            _draw_frame(sheet, left, top, sheet.tile)
    if strip.note and strip.tiles:
        left, top = corners[-1]
        right, lower = left + sheet.tile - 1, top + sheet.tile - 1
        sheet.pen.rounded_rectangle((left, top, right, lower), 4, fill=BLANK)
        middle = (left + sheet.tile // 2, top + sheet.tile // 2)
        sheet.pen.text(middle, strip.note, SOFT, sheet.fonts.name, anchor="mm")


def _draw_frame(sheet: Sheet, left: int, top: int, width: int) -> None:
    right, lower = left + width - 1 + FRAME, top + sheet.tile - 1 + FRAME
    sheet.pen.rectangle((left - FRAME, top - FRAME, right, lower), outline=H_COLOUR, width=FRAME)
