"""Meta-Dataset's dataset_spec.json: `pipeline.sources.tfrecords.spec.read_spec`, all three kinds."""

from __future__ import annotations

import json

from pipeline.errors import PipelineError
from pipeline.sources.tfrecords.spec import read_spec
from tests.fuzz.json_mutations import mutate_json_text as mutate  # noqa: F401 - the harness calls it
from tests.fuzz.source_files import written


def seeds() -> list[bytes]:
    flat = {
        "__class__": "DatasetSpecification", "name": "dtd", "file_pattern": "{}.tfrecords", "path": None,
        "class_names": {"0": "a", "1": "b", "2": "c"}, "images_per_class": {"0": 3, "1": 2, "2": 1},
        "classes_per_split": {"TRAIN": 1, "VALID": 1, "TEST": 1},
    }  # fmt: skip
    bilevel = {
        **flat, "__class__": "BiLevelDatasetSpecification", "superclass_names": {"0": "x", "1": "y"},
        "classes_per_superclass": {"0": 2, "1": 1}, "superclasses_per_split": {"TRAIN": 1, "VALID": 0, "TEST": 1},
    }  # fmt: skip
    graphs = {
        word: [
            {"wn_id": word, "words": "root", "children_ids": [name], "parents_ids": []},
            {"wn_id": name, "words": "leaf", "children_ids": [], "parents_ids": [word]},
        ]
        for word, name in zip(("TRAIN", "VALID", "TEST"), "abc", strict=True)
    }
    images = {"TRAIN": {"a": 3}, "VALID": {"b": 2}, "TEST": {"c": 1}}
    tree = {
        **flat, "__class__": "HierarchicalDatasetSpecification", "split_subgraphs": graphs,
        "images_per_class": images,
    }  # fmt: skip
    return [json.dumps(spec).encode() for spec in (flat, bilevel, tree)]


def check(data: bytes) -> None:
    """An accepted spec counts each class, and all of its names are text."""
    try:
        spec = read_spec(written("dataset_spec.json", data))
    except PipelineError as error:
        assert len(str(error)) < 2000  # noqa: PT017 - the length of the sentence, not what it says
        return
    assert len(spec.classes) == len(spec.images)
    assert all(record.printable() == record for record in spec.classes)
    assert min(spec.images, default=0) >= 0
