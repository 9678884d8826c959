"""ORBIT's extra annotations: what is wrong with a frame, and where its object is.

One JSON file for each video, `annotations/<split>/<video>.json`: frame file name to a dictionary.
Videos of an object alone carry seven quality flags, videos in clutter a box (left, upper, width,
height in frames of 1080 pixels) and the first flag. Both published spellings of a box are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.constants import QUALITY
from pipeline.errors import IntegrityError
from pipeline.records import Box
from pipeline.sources.spans import Span, SpanReader

FOLDER: Final = "annotations"
BOX: Final = "object_bounding_box"
SIDES: Final = ("x", "y", "w", "h")


class Annotation(NamedTuple):
    """What an `Item` says of a frame, in its fields of the same names."""

    quality: tuple[int, ...] = ()
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Annotations:
    """The annotation files of a set, in folders and in archives."""

    folder: Path
    zipped: Mapping[tuple[str, str], Span]
    """By split's folder and video."""
    reader: SpanReader

    def of(self, level: str, video: str) -> tuple[Mapping[str, Annotation], list[str]]:
        """Annotations by frame file name, and what is wrong with the file."""
        try:
            if (level, video) in self.zipped:
                data = self.reader.read_span(self.zipped[level, video])
            else:
                data = (self.folder / FOLDER / level / f"{video}.json").read_bytes()
        except FileNotFoundError:
            return {}, []
        except (OSError, IntegrityError) as error:
            return {}, [f"annotations cannot be read: {error}"]
        return parsed(data)


def parsed(data: bytes) -> tuple[dict[str, Annotation], list[str]]:
    """The readable annotations of one file, and at most one complaint about the others."""
    try:
        frames = json.loads(data)
    except (ValueError, RecursionError) as error:
        return {}, [f"annotations are no JSON ({error}); its frames are kept without them"]
    if not isinstance(frames, dict):
        return {}, [f"annotations must be one object, found {type(frames).__name__}"]
    notes: dict[str, Annotation] = {}
    wrong: list[str] = []
    for name, entry in frames.items():
        try:
            notes[name] = annotation(entry)
        except (TypeError, ValueError, OverflowError) as error:
            wrong.append(f"{name}: {error}")
    return notes, [f"{len(wrong):,} bad annotations, the first at {wrong[0]}"] if wrong else []


def annotation(entry: object) -> Annotation:
    """One frame's dictionary. Raises TypeError or ValueError."""
    if not isinstance(entry, dict):
        raise TypeError(f"an object is needed, found {entry!r}")
    quality = tuple(_flag(name, entry.get(name)) for name in QUALITY)
    return Annotation(quality if max(quality) >= 0 else (), _box(entry.get(BOX)))


def _flag(name: str, value: object) -> int:
    if value is None:
        return -1
    if value in (0, 1):
        return int(bool(value))
    raise ValueError(f"{name} must be true, false or null, found {value!r}")


def _box(value: object) -> Box | None:
    """The box, or None where the object is not in the frame (null, or four zeros)."""
    if value is None:
        return None
    sides: Iterable[object] = ()
    if isinstance(value, dict):
        sides = [value.get(side) for side in SIDES]
    elif isinstance(value, list):
        sides = value
    numbers = [int(s) for s in sides if isinstance(s, (int, float)) and not isinstance(s, bool)]
    if len(numbers) != len(SIDES):
        raise ValueError(f"{BOX} must be four numbers, found {value!r}")
    left, upper, width, height = numbers
    if not any(numbers):
        return None
    if width < 1 or height < 1:
        raise ValueError(f"{BOX} is empty: {value!r}")
    return left, upper, width, height
