"""The shipped class lists against the published table, and against the reference files where they are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.records import Item, Rejected
from pipeline.sources.meta_dataset import MD_FAMILY, META_DATASETS
from pipeline.sources.meta_dataset.classes import official_classes
from pipeline.sources.wordnet import split_graphs

SPLITS = {"TRAIN": "train", "VALID": "validation", "TEST": "test"}
PUBLISHED: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "ilsvrc_2012": ((712, 915_249), (158, 199_833), (130, 165_682)),
    "ilsvrc_2012_v2": ((1000, 1_280_764), (0, 0), (0, 0)),
    "omniglot": ((883, 17_660), (81, 1_620), (659, 13_180)),
    "aircraft": ((70, 7000), (15, 1500), (15, 1500)),
    "cu_birds": ((140, 8239), (30, 1779), (30, 1770)),
    "dtd": ((33, 3960), (7, 840), (7, 840)),
    "quickdraw": ((241, 34_776_331), (52, 7_939_640), (52, 7_710_295)),
    "fungi": ((994, 64_449), (200, 12_195), (200, 13_116)),
    "vgg_flower": ((71, 5655), (15, 1109), (16, 1425)),
    "traffic_sign": ((0, 0), (0, 0), (43, 39_209)),
    "mscoco": ((0, 0), (40, 513_021), (40, 346_980)),
    "mnist": ((10, 10_000), (0, 0), (0, 0)),
}
RANGES = {
    "ilsvrc_2012": (732, 1300),
    "ilsvrc_2012_v2": (732, 1300),
    "omniglot": (20, 20),
    "aircraft": (100, 100),
    "cu_birds": (41, 60),
    "dtd": (120, 120),
    "quickdraw": (113_613, 340_029),
    "fungi": (6, 442),
    "vgg_flower": (40, 258),
    "traffic_sign": (210, 2250),
    "mscoco": (198, 262_465),
    "mnist": (892, 1135),
}


def test_every_dataset_of_the_table_is_here_and_the_family_has_the_imagenet_that_md_v2_trains_on() -> None:
    assert list(META_DATASETS) == list(PUBLISHED)
    assert list(MD_FAMILY) == [name for name in PUBLISHED if name != "ilsvrc_2012"]


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_class_and_image_counts_are_the_published_ones(dataset: str) -> None:
    classes = official_classes(dataset)
    for split, (count, images) in zip(SPLITS.values(), PUBLISHED[dataset], strict=True):
        own = [entry for entry in classes if entry.record.split == split]
        assert (len(own), sum(entry.images for entry in own)) == (count, images)
    sizes = [entry.images for entry in classes]
    assert (min(sizes), max(sizes)) == RANGES[dataset]
    assert len({entry.record.name for entry in classes}) == len(classes)


def test_omniglots_alphabets_are_split_25_5_20_and_validation_has_its_fixed_order() -> None:
    alphabets: dict[str, list[str]] = {}
    for entry in official_classes("omniglot"):
        names = alphabets.setdefault(entry.record.split, [])
        if entry.record.superclass not in names:
            names.append(entry.record.superclass)
    assert {split: len(names) for split, names in alphabets.items()} == {
        "train": 25,
        "validation": 5,
        "test": 20,
    }
    assert alphabets["train"] == sorted(alphabets["train"])
    assert alphabets["test"] == sorted(alphabets["test"])
    assert [name.split("_")[0] for name in alphabets["validation"]] == [
        "Blackfoot",
        "Ojibwe",
        "Inuktitut",
        "Tagalog",
        "Alphabet",
    ]


@pytest.mark.parametrize("dataset", sorted(set(PUBLISHED) - {"mnist"}))
def test_classes_are_exactly_those_of_the_reference_specification(dataset: str, real_data: Path) -> None:
    file = f"dataset_specs/{dataset}_dataset_spec.json"
    spec = json.loads((real_data / "splits" / "meta_dataset" / file).read_text())
    classes = official_classes(dataset)
    names = [spec["class_names"][str(number)] for number in range(len(spec["class_names"]))]
    assert [entry.record.name for entry in classes] == names
    images = spec["images_per_class"]
    if "split_subgraphs" in spec:
        nodes = {n["wn_id"]: n for part in spec["split_subgraphs"].values() for n in part}
        assert [entry.record.words for entry in classes] == [nodes[name]["words"] for name in names]
        images = {k: v for part in images.values() for k, v in part.items() if k in names}
        assert {entry.record.name: entry.images for entry in classes} == images
        return
    assert [entry.images for entry in classes] == [images[str(i)] for i in range(len(names))]
    assert Counter(entry.record.split for entry in classes) == _split_sizes(spec)
    if "superclass_names" in spec:
        above = list(dict.fromkeys(entry.record.superclass for entry in classes))
        assert above == [spec["superclass_names"][str(i)] for i in range(50)]


def _split_sizes(spec: dict[str, Any]) -> Counter[str]:
    if "classes_per_split" in spec:
        return +Counter({SPLITS[key]: count for key, count in spec["classes_per_split"].items()})
    sizes = iter(spec["classes_per_superclass"][str(i)] for i in range(50))
    above = spec["superclasses_per_split"]
    return Counter({SPLITS[key]: sum(next(sizes) for _ in range(above[key])) for key in SPLITS})


@pytest.mark.parametrize(
    "dataset", sorted(set(PUBLISHED) - {"mnist", "omniglot", "ilsvrc_2012", "ilsvrc_2012_v2"})
)
def test_classes_are_exactly_those_of_the_reference_split_lists(dataset: str, real_data: Path) -> None:
    lists = json.loads((real_data / "splits/meta_dataset" / f"{dataset}_splits.json").read_text())
    classes = [(entry.record.split, entry.record.name) for entry in official_classes(dataset)]
    words = {"train": "train", "valid": "validation", "test": "test"}
    assert classes == [(split, name) for key, split in words.items() for name in lists[key]]


@pytest.mark.parametrize("dataset", ["ilsvrc_2012", "ilsvrc_2012_v2"])
def test_the_graphs_are_exactly_the_reference_ones(dataset: str, real_data: Path) -> None:
    file = f"dataset_specs/{dataset}_dataset_spec.json"
    spec = json.loads((real_data / "splits" / "meta_dataset" / file).read_text())
    assert split_graphs(all_train=dataset.endswith("_v2")) == {
        split: {node["wn_id"]: tuple(node["children_ids"]) for node in spec["split_subgraphs"][key]}
        for key, split in SPLITS.items()
    }


def test_the_real_omniglot_background_is_whole(real_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    survey = META_DATASETS["omniglot"](root=real_data / "omniglot").survey()
    items = list(survey.items)
    assert len(survey.classes) == 964
    assert len({record.superclass for record in survey.classes}) == 30
    assert len(items) == 19_280
    assert not any(isinstance(entry, Rejected) for entry in items)
    assert "images_evaluation.zip" in caplog.text
    assert "official number" not in caplog.text


def test_the_real_mnist_test_files_are_whole(
    real_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = META_DATASETS["mnist"](root=real_data / "mnist", scratch=tmp_path)
    items = [entry for entry in source.survey().items if isinstance(entry, Item)]
    sizes = Counter(item.class_id for item in items)
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert [sizes[digit] for digit in range(10)] == counts
    assert caplog.text == ""
    assert len(list(source.pictures(items[:50]))) == 50
