"""The contact sheet of one episode: a lane for each class, support left, queries right, H framed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Final

from PIL import Image, ImageDraw

from pipeline.show.contact_sheet import (
    EDGE_COLOUR,
    LABEL_WIDTH,
    MARGIN,
    PAPER_COLOUR,
    SOFT_COLOUR,
    TEXT_COLOUR,
    SheetFonts,
    draw_label,
    elide_middle,
)
from pipeline.show.episode import ClassLane, EpisodeView, TileStrip
from pipeline.show.facts import plural, printable
from pipeline.show.stored_images import read_images
from pipeline.store.local import SampleStore

TILE_GAP: Final = 8  # pixels between images; two frames of H fit into it
H_FRAME: Final = 3  # pixels, of H's frame
GUTTER: Final = 40  # between support and queries
LANE_GAP: Final = 20
STRIP_GAP: Final = 10
CAPTION_HEIGHT: Final = 20  # above a video's frames
TOP_HEIGHT: Final = 112  # for title, numbers and the columns' names
LEAST_WIDTH: Final = 760  # room for a title
TILE_SIZES: Final = ((12, 96), (30, 72))  # lines of images at most, and pixels of an image
SMALL_TILE: Final = 56
MOST_LANES: Final = 60  # classes; Meta-Dataset's episodes have up to 50, VTAB's tasks hundreds
H_COLOUR: Final = "#d6336c"
MORE_COLOUR: Final = "#f1f1ee"


@dataclass(frozen=True, slots=True)
class SheetCanvas:
    """The canvas of a sheet, and the pen, fonts and images to draw on it."""

    canvas: Image.Image
    pen: ImageDraw.ImageDraw
    fonts: SheetFonts
    tile: int
    images: Mapping[int, Image.Image]
    """By row of the index, `tile` pixels wide."""


def episode_sheet(view: EpisodeView, store: SampleStore, size: int) -> Image.Image:
    """Draw an episode from the images stored at `size`. Raises IntegrityError if one is damaged."""
    more = len(view.lanes) - MOST_LANES
    view = replace(view, lanes=view.lanes[:MOST_LANES])
    tile = _tile_size(view)
    support_width, query_width = (count * (tile + TILE_GAP) - TILE_GAP for count in view.columns)
    lefts = (MARGIN + LABEL_WIDTH, MARGIN + LABEL_WIDTH + support_width + GUTTER)
    width = max(lefts[1] + query_width, LEAST_WIDTH - MARGIN) + MARGIN
    heights = [_lane_height(view, lane, tile) + LANE_GAP for lane in view.lanes]
    height = TOP_HEIGHT + sum(heights) + MARGIN + (CAPTION_HEIGHT if more > 0 else 0)
    canvas = Image.new("RGB", (width, height), PAPER_COLOUR)
    images = _load_tiles(view, store, size, tile)
    sheet = SheetCanvas(canvas, ImageDraw.Draw(canvas), SheetFonts.load(), tile, images)
    _draw_top(sheet, view, lefts)
    top = TOP_HEIGHT + LANE_GAP
    for lane, lane_height in zip(view.lanes, heights, strict=True):
        _draw_lane_label(sheet, view, lane, top)
        sides = (lane.support, lane.query)
        for strips, columns, left in zip(sides, view.columns, lefts, strict=True):
            _draw_side(sheet, strips, columns, (left, top))
        top += lane_height
    if more > 0:
        text = f"and {plural(more, 'more class')}"
        sheet.pen.text((MARGIN, top), text, SOFT_COLOUR, sheet.fonts.name)
    return canvas


def _tile_size(view: EpisodeView) -> int:
    """Pixels of an image: the more lines, the smaller."""
    lines = sum(
        max(
            sum(_strip_lines(strip, width) for strip in strips)
            for strips, width in zip((lane.support, lane.query), view.columns, strict=True)
        )
        for lane in view.lanes
    )
    return next((tile for most, tile in TILE_SIZES if lines <= most), SMALL_TILE)


def _strip_lines(strip: TileStrip, columns: int) -> int:
    """Lines of images in a strip; the note about what is not drawn takes the place of one image."""
    if strip.title:
        return 1
    return -(-(len(strip.tiles) + bool(strip.tiles and strip.note)) // max(columns, 1))


def _strip_height(strip: TileStrip, columns: int, tile: int) -> int:
    lines = _strip_lines(strip, columns)
    height = lines * (tile + TILE_GAP) - TILE_GAP if lines else 0
    return height + (CAPTION_HEIGHT if strip.title or not strip.tiles else 0)


def _lane_height(view: EpisodeView, lane: ClassLane, tile: int) -> int:
    return max(
        sum(_strip_height(strip, width, tile) + STRIP_GAP for strip in strips) - STRIP_GAP
        for strips, width in zip((lane.support, lane.query), view.columns, strict=True)
    )


def _load_tiles(view: EpisodeView, store: SampleStore, size: int, tile: int) -> dict[int, Image.Image]:
    """Read the images that are drawn and resize them; by row of the index."""
    strips = [strip for lane in view.lanes for strip in (*lane.support, *lane.query)]
    rows = sorted({tile.row for strip in strips for tile in strip.tiles})
    images = read_images(store, view.dataset, size, rows)
    resampling = Image.Resampling.LANCZOS
    return {row: i.resize((tile, tile), resampling) for row, i in zip(rows, images, strict=True)}


def _draw_top(sheet: SheetCanvas, view: EpisodeView, lefts: tuple[int, int]) -> None:
    plan, pen, fonts = view.plan, sheet.pen, sheet.fonts
    pen.text((MARGIN, MARGIN), episode_title(view), TEXT_COLOUR, fonts.heading)
    users = sorted({lane.user for lane in view.lanes} - {""})
    parts = [
        f"episode {plan.number:,}",
        view.splits,
        f"user {users[0]}" if len(users) == 1 else plural(len(users), "user") if users else "",
        plan.digest[:12],
    ]
    pen.text((MARGIN, MARGIN + 34), ", ".join(filter(None, parts)), SOFT_COLOUR, fonts.small)
    in_h = f"support: {len(plan.support):,}, of which {len(view.h):,} in H"
    names = (in_h, f"queries: {len(plan.query):,}")
    for name, left in zip(names, lefts, strict=True):
        pen.text((left, TOP_HEIGHT - 6), name, SOFT_COLOUR, fonts.small, anchor="ls")
    if len(view.h):
        left = lefts[0] + int(pen.textlength(in_h, fonts.small)) + 10
        box = (left, TOP_HEIGHT - 16, left + 11, TOP_HEIGHT - 5)
        pen.rectangle(box, outline=H_COLOUR, width=H_FRAME)
    pen.line((MARGIN, TOP_HEIGHT + 4, sheet.canvas.width - MARGIN, TOP_HEIGHT + 4), EDGE_COLOUR)


def episode_title(view: EpisodeView) -> str:
    """The episode's dataset, way and shots."""
    shots = view.plan.shots
    unit = "frame" if view.videos else "shot"
    low, high = int(shots.min()), int(shots.max())
    spread = plural(high, unit) if low == high else f"{low:,} to {plural(high, unit)}"
    return f"{printable(view.plan.dataset)}, {view.plan.way}-way, {spread}"


def _draw_lane_label(sheet: SheetCanvas, view: EpisodeView, lane: ClassLane, top: int) -> None:
    """Draw the class's name and numbers beside its first row of images."""
    centre = top + sheet.tile // 2 - 8 + (CAPTION_HEIGHT if view.videos else 0)
    unit = "frame" if view.videos else "shot"
    about = f"{plural(lane.shots, unit)}, {lane.in_h:,} in H"
    draw_label(sheet.pen, sheet.fonts, centre, about, lane.name, lane.split)


def _draw_side(
    sheet: SheetCanvas, strips: tuple[TileStrip, ...], columns: int, corner: tuple[int, int]
) -> None:
    left, top = corner
    for strip in strips:
        if strip.title or not strip.tiles:
            _draw_caption(sheet, strip, columns, (left, top))
        if strip.title:
            _draw_frames(sheet, strip, (left, top + CAPTION_HEIGHT))
        else:
            _draw_stills(sheet, strip, columns, (left, top))
        top += _strip_height(strip, columns, sheet.tile) + STRIP_GAP


def _draw_caption(sheet: SheetCanvas, strip: TileStrip, columns: int, corner: tuple[int, int]) -> None:
    """Draw a video's name, and how many of its frames are not shown."""
    (left, top), pen, font = corner, sheet.pen, sheet.fonts.small
    width = columns * (sheet.tile + TILE_GAP) - TILE_GAP - int(pen.textlength(strip.note, font))
    name = elide_middle(pen, strip.title, width - 2 * TILE_GAP, font)
    pen.text((left, top + CAPTION_HEIGHT - 8), name, TEXT_COLOUR, font, anchor="ls")
    side = left + int(pen.textlength(f"{name}   ", font)) if name else left
    pen.text((side, top + CAPTION_HEIGHT - 8), strip.note, SOFT_COLOUR, font, anchor="ls")


def _draw_frames(sheet: SheetCanvas, strip: TileStrip, corner: tuple[int, int]) -> None:
    """Draw frames without gaps, as on a film; one line surrounds consecutive frames in H."""
    left, top = corner
    for in_h, group in groupby(strip.tiles, attrgetter("in_h")):
        begin = left
        for tile in group:
            sheet.canvas.paste(sheet.images[tile.row], (left, top))
            left += sheet.tile
        if in_h:
            _draw_frame(sheet, begin, top, left - begin)


def _draw_stills(sheet: SheetCanvas, strip: TileStrip, columns: int, corner: tuple[int, int]) -> None:
    step = sheet.tile + TILE_GAP
    corners = [
        (corner[0] + place % columns * step, corner[1] + place // columns * step)
        for place in range(len(strip.tiles) + 1)
    ]
    for tile, (left, top) in zip(strip.tiles, corners, strict=False):
        sheet.canvas.paste(sheet.images[tile.row], (left, top))
        right, lower = left + sheet.tile - 1, top + sheet.tile - 1
        sheet.pen.rectangle((left, top, right, lower), outline=EDGE_COLOUR)
        if tile.in_h:
            _draw_frame(sheet, left, top, sheet.tile)
    if strip.note and strip.tiles:
        left, top = corners[-1]
        right, lower = left + sheet.tile - 1, top + sheet.tile - 1
        sheet.pen.rounded_rectangle((left, top, right, lower), 4, fill=MORE_COLOUR)
        middle = (left + sheet.tile // 2, top + sheet.tile // 2)
        sheet.pen.text(middle, strip.note, SOFT_COLOUR, sheet.fonts.name, anchor="mm")


def _draw_frame(sheet: SheetCanvas, left: int, top: int, width: int) -> None:
    right, lower = left + width - 1 + H_FRAME, top + sheet.tile - 1 + H_FRAME
    box = (left - H_FRAME, top - H_FRAME, right, lower)
    sheet.pen.rectangle(box, outline=H_COLOUR, width=H_FRAME)
