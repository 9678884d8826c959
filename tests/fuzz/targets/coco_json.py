"""COCO's list: `pipeline.sources.meta_dataset.coco`, read as a stream, and planning its boxes."""

from __future__ import annotations

import json

from pipeline.errors import PipelineError
from pipeline.records import Item, Rejected
from pipeline.sources.archives import MemberTree
from pipeline.sources.meta_dataset.coco import _annotated_objects, _read_instances
from pipeline.sources.spans import FileSpan
from tests.fuzz.json_mutations import mutate_json_text as mutate  # noqa: F401 - the harness calls it
from tests.fuzz.source_files import look_at_items, source_folder, written


def seeds() -> list[bytes]:
    values = {
        "info": {"year": 2017},
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
        "annotations": [
            {"id": 7, "image_id": 1, "category_id": 3, "bbox": [10, 20, 40, 10.5]},
            {"id": 8, "image_id": 2, "category_id": 3, "bbox": [0, 0, 1, 1]},
        ],
        "categories": [{"id": 3, "name": "cat"}],
    }
    return [json.dumps(values).encode(), b"{}", b'{"images": ' + b"[" * 2000]


def check(data: bytes) -> None:
    tree = MemberTree(source_folder(), None, {"a.jpg": FileSpan("a.jpg")})
    try:
        instances = _read_instances(written("instances_train2017.json", data))
    except PipelineError:
        return
    for category in list(instances.boxes)[:5]:
        entries = list(_annotated_objects(tree, instances, category))[:20]
        look_at_items(
            entry if isinstance(entry, Rejected) else Item(entry.name, 0, "", *entry.span, crop=entry.crop)
            for entry in entries
        )
