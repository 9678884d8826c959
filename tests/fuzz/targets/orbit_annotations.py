"""ORBIT annotations: `pipeline.sources.orbit.annotations.parse_annotations`, and planning what it accepts."""

from __future__ import annotations

import json

from pipeline.constants import QUALITY_ISSUES
from pipeline.records import Item, Rejected
from pipeline.sources.orbit.annotations import parse_annotations
from tests.fuzz.json_mutations import mutate_json_text as mutate  # noqa: F401 - the harness calls it
from tests.fuzz.source_files import look_at_items


def seeds() -> list[bytes]:
    flags = dict.fromkeys(QUALITY_ISSUES, False)
    boxes = [{"x": 1, "y": 2, "w": 30, "h": 40}, [540, 0, 1080, 3], None, [0, 0, 0, 0]]
    clutter = {
        f"v-{n:05d}.jpg": {"object_bounding_box": b, QUALITY_ISSUES[0]: b is None}
        for n, b in enumerate(boxes)
    }
    return [json.dumps({"v-00001.jpg": flags}).encode(), json.dumps(clutter).encode(), b"[" * 2000]


def check(data: bytes) -> None:
    annotations, problems = parse_annotations(data)
    assert len(problems) <= 1
    items = [
        Item(name, 0, quality=note.quality, box=note.box) for name, note in list(annotations.items())[:20]
    ]
    look_at_items([*items, *(Rejected("v.json", problem) for problem in problems)])
