"""ORBIT's extra annotations: quality issues of a frame, and the box of its object.

There is one JSON file per video, `annotations/<split>/<video>.json`: a dictionary for each frame file.
Videos of an object alone have seven quality flags; videos in clutter have a box (left, upper, width,
height in frames of 1080 pixels) and the first flag. Both published spellings of a box are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.constants import BOX_FRAME, QUALITY_ISSUES
from pipeline.errors import IntegrityError
from pipeline.records import Box
from pipeline.settings import parse_json
from pipeline.sources.spans import FileSpan, SpanReader, read_list

ANNOTATIONS_FOLDER: Final = "annotations"
BOX_ENTRY: Final = "object_bounding_box"
FARTHEST: Final = 1000 * BOX_FRAME  # pixels; no annotation is so wrong, and plans hold numbers of 32 bits
BOX_SIDES: Final = ("x", "y", "w", "h")


class FrameAnnotation(NamedTuple):
    """The annotation of a frame; an `Item` has the same two fields."""

    quality: tuple[int, ...] = ()
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class AnnotationFiles:
    """The annotation files of a dataset, in folders and in archives."""

    folder: Path
    zipped: Mapping[tuple[str, str], FileSpan]
    """By folder of the split and video."""
    reader: SpanReader

    def read_video(self, level: str, video: str) -> tuple[Mapping[str, FrameAnnotation], list[str]]:
        """The annotations of a video by frame file name, and the problems of its file."""
        try:
            if (level, video) in self.zipped:
                data = self.reader.read_span(self.zipped[level, video])
            else:
                data = read_list(self.folder / ANNOTATIONS_FOLDER / level / f"{video}.json")
        except FileNotFoundError:
            return {}, []
        except (OSError, IntegrityError) as error:
            return {}, [f"annotations cannot be read: {error}"]
        return parse_annotations(data)


def parse_annotations(data: bytes) -> tuple[dict[str, FrameAnnotation], list[str]]:
    """The readable annotations of one file, and at most one message about the others."""
    try:
        frames = parse_json(data, "the file")
    except IntegrityError as error:
        return {}, [f"annotations are no JSON ({error}); its frames are kept without them"]
    if not isinstance(frames, dict):
        return {}, [f"annotations must be one object, found {type(frames).__name__}"]
    annotations: dict[str, FrameAnnotation] = {}
    wrong: list[str] = []
    for name, entry in frames.items():
        try:
            annotations[name] = parse_annotation(entry)
        except (TypeError, ValueError, OverflowError) as error:
            wrong.append(f"{name}: {error}")
    return annotations, [f"{len(wrong):,} bad annotations, the first at {wrong[0]}"] if wrong else []


def parse_annotation(entry: object) -> FrameAnnotation:
    """Parse the dictionary of one frame. Raises TypeError or ValueError."""
    if not isinstance(entry, dict):
        raise TypeError(f"an object is needed, found {entry!r:.60}")
    quality = tuple(_flag(name, entry.get(name)) for name in QUALITY_ISSUES)
    return FrameAnnotation(quality if max(quality) >= 0 else (), _box(entry.get(BOX_ENTRY)))


def _flag(name: str, value: object) -> int:
    if value is None:
        return -1
    if value in (0, 1):
        return int(bool(value))
    raise ValueError(f"{name} must be true, false or null, found {value!r:.60}")


def _box(value: object) -> Box | None:
    """The box, or None where the object is not in the frame (null, or four zeros)."""
    if value is None:
        return None
    sides: Iterable[object] = ()
    if isinstance(value, dict):
        sides = [value.get(side) for side in BOX_SIDES]
    elif isinstance(value, list):
        sides = value
    numbers = [int(s) for s in sides if isinstance(s, (int, float)) and not isinstance(s, bool)]
    if len(numbers) != len(BOX_SIDES):
        raise ValueError(f"{BOX_ENTRY} must be four numbers, found {value!r:.60}")
    left, upper, width, height = numbers
    if not any(numbers):
        return None
    if width < 1 or height < 1:
        raise ValueError(f"{BOX_ENTRY} is empty: {value!r:.60}")
    if max(map(abs, numbers)) > FARTHEST:
        raise ValueError(f"{BOX_ENTRY} lies more than {FARTHEST:,} pixels away: {value!r:.60}")
    return left, upper, width, height
