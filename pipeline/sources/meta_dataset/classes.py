"""The official classes of each dataset, in the order of their ids: train, validation, test."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple, cast

from pipeline.records import ClassRecord, Split
from pipeline.sources.facts import fact_rows
from pipeline.sources.wordnet import imagenet, split_graphs

OMNIGLOT_PICTURES: Final = 20  # of each character, drawn by twenty people
FLAT: Final = (
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
    record: ClassRecord
    pictures: int
    """How many pictures Meta-Dataset counts."""


@cache
def official_classes(dataset: str) -> tuple[OfficialClass, ...]:
    """All classes of a dataset; a class's id is its position."""
    if dataset == "omniglot":
        return _omniglot()
    if dataset not in FLAT:
        return _imagenet(all_train=dataset == "ilsvrc_2012_v2")
    return tuple(
        OfficialClass(ClassRecord(name=name, split=cast("Split", split)), int(pictures))
        for split, pictures, name in fact_rows(dataset)
    )


def _omniglot() -> tuple[OfficialClass, ...]:
    records = (
        ClassRecord(
            name=f"{alphabet}-character{number:02d}",
            split=cast("Split", split),
            superclass=alphabet,
        )
        for split, characters, alphabet in fact_rows("omniglot")
        for number in range(1, int(characters) + 1)
    )
    return tuple(OfficialClass(record, OMNIGLOT_PICTURES) for record in records)


def _imagenet(*, all_train: bool) -> tuple[OfficialClass, ...]:
    nodes = imagenet()
    return tuple(
        OfficialClass(
            ClassRecord(name=name, split=cast("Split", split), words=nodes[name].words),
            nodes[name].pictures,
        )
        for split, graph in split_graphs(all_train=all_train).items()
        for name, children in sorted(graph.items())
        if not children
    )
