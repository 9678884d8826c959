"""The official classes of each dataset, in the order of their ids: train, validation, test."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple, cast

from pipeline.records import ClassRecord, Split
from pipeline.sources.facts import fact_rows
from pipeline.sources.wordnet import imagenet_nodes, split_graphs

OMNIGLOT_IMAGES: Final = 20  # per character, each drawn by another person
FLAT_DATASETS: Final = (
    "aircraft",
    "cu_birds",
    "dtd",
    "fungi",
    "mnist",
    "mscoco",
    "quickdraw",
    "traffic_sign",
    "vgg_flower",
)


class OfficialClass(NamedTuple):
    """A class of Meta-Dataset, and how many images it counts in it."""

    record: ClassRecord
    images: int


@cache
def official_classes(dataset: str) -> tuple[OfficialClass, ...]:
    """All classes of a dataset; a class's id is its position."""
    if dataset == "omniglot":
        return _omniglot_classes()
    if dataset not in FLAT_DATASETS:
        return _imagenet_classes(all_train=dataset == "ilsvrc_2012_v2")
    return tuple(
        OfficialClass(ClassRecord(name=name, split=cast("Split", split)), int(images))
        for split, images, name in fact_rows(dataset)
    )


def _omniglot_classes() -> tuple[OfficialClass, ...]:
    records = (
        ClassRecord(name=f"{alphabet}-character{number:02d}", split=cast("Split", split), superclass=alphabet)
        for split, characters, alphabet in fact_rows("omniglot")
        for number in range(1, int(characters) + 1)
    )
    return tuple(OfficialClass(record, OMNIGLOT_IMAGES) for record in records)


def _imagenet_classes(*, all_train: bool) -> tuple[OfficialClass, ...]:
    nodes = imagenet_nodes()
    return tuple(
        OfficialClass(
            ClassRecord(name=name, split=cast("Split", split), words=nodes[name].words), nodes[name].images
        )
        for split, graph in split_graphs(all_train=all_train).items()
        for name, children in sorted(graph.items())
        if not children
    )
