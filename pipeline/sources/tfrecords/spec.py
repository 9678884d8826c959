"""Meta-Dataset's dataset_spec.json: which classes a converted dataset has, and in which splits.

There are three kinds, distinguished by "__class__": flat classes, classes within superclasses
(Omniglot's alphabets), and classes that are the leaves of one WordNet graph for each split (ImageNet).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from pipeline.errors import IntegrityError, SourceMissing, first_few, first_line
from pipeline.records import ClassRecord, Split
from pipeline.sources.spans import read_list

SPEC_FILE: Final = "dataset_spec.json"
PICKLED_SPEC_FILE: Final = "dataset_spec.pkl"
FILE_PATTERN: Final = "{}.tfrecords"
SPEC_SPLITS: Final[dict[str, Split]] = {"TRAIN": "train", "VALID": "validation", "TEST": "test"}
"""In the order of the class ids."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSpec:
    """The contents of a dataset_spec.json; a class's id is its position."""

    name: str
    classes: tuple[ClassRecord, ...]
    images: tuple[int, ...]
    """The number of images of each class."""
    hierarchy: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """ImageNet: for each split, a WordNet id and its children."""


def read_spec(path: Path) -> DatasetSpec:
    """Read a dataset_spec.json of any kind; its `path` entry is ignored."""
    try:
        raw = json.loads(read_list(path).decode("utf-8"))
        json.dumps(raw, ensure_ascii=False).encode()  # escapes in JSON can name what is no character
    except (FileNotFoundError, NotADirectoryError):
        _refuse_missing(path)
    except OSError as error:
        raise SourceMissing(f"{path} is needed and cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8
        raise IntegrityError(f"{path} is not JSON ({first_line(error)}); copy it again") from error
    if not isinstance(raw, dict):
        raise IntegrityError(f"{path} should be a JSON object and is a {type(raw).__name__}")
    reader = _SpecEntries(path, raw)
    kind = reader.text("__class__")
    if kind not in SPEC_READERS:
        raise IntegrityError(
            f"{path}: __class__ should be one of {', '.join(SPEC_READERS)}; it is {kind!r:.60}"
        )
    if (pattern := reader.text("file_pattern")) != FILE_PATTERN:
        raise IntegrityError(
            f"{path}: file_pattern should be {FILE_PATTERN!r} and is {pattern!r:.60}; records in several "
            "files for a class (pools) are not supported, convert them without pools"
        )
    return SPEC_READERS[kind](reader)


def _refuse_missing(path: Path) -> NoReturn:
    if path.with_name(PICKLED_SPEC_FILE).exists():
        raise SourceMissing(
            f"{path} is needed and only {PICKLED_SPEC_FILE} is there, which could run any code and is not "
            "opened; take the JSON of this dataset from the folder dataset_conversion/dataset_specs "
            "of google-research/meta-dataset, or convert again with its present version"
        ) from None
    raise SourceMissing(
        f"{path} is needed and is not there; Meta-Dataset's converter writes it beside the "
        "0.tfrecords, 1.tfrecords, ... of a dataset"
    ) from None


@dataclass(frozen=True, slots=True)
class _SpecEntries:
    """The entries of a spec; the type of each is checked when it is read."""

    path: Path
    raw: Mapping[str, object]

    def fail(self, problem: str) -> NoReturn:
        raise IntegrityError(f"{self.path}: {problem:.400}; is it as the converter wrote it?")

    def text(self, key: str) -> str:
        value = self.raw.get(key)
        if not isinstance(value, str):
            self.fail(f"{key!r} should be a text and is {value!r:.60}")
        return value

    def table(self, key: str) -> dict[str, object]:
        value = self.raw.get(key)
        if not isinstance(value, dict):
            self.fail(f"{key!r} should be a table and is {value!r:.60}")
        return value

    def names(self, key: str) -> list[str]:
        """The list in a table of names with the keys "0", "1", ..."""
        names = [name for name in self._in_order(key) if isinstance(name, str)]
        if len(names) != len(self.table(key)):
            self.fail(f"{key!r} holds something other than names")
        return names

    def counts(self, key: str) -> list[int]:
        """The list in a table of counts with the keys "0", "1", ..."""
        return [self.count(value, key) for value in self._in_order(key)]

    def count(self, value: object, where: str) -> int:
        if isinstance(value, dict):
            self.fail(f"{where!r} splits a class into pools, which are not supported")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.fail(f"{where!r} should hold counts and holds {value!r:.60}")
        return value

    def splits(self, key: str, total: int) -> list[Split]:
        """The split of each of `total` classes (or superclasses), from the number in each split."""
        table = self.table(key)
        if set(table) != set(SPEC_SPLITS):
            self.fail(f"{key!r} should have {', '.join(SPEC_SPLITS)} and has {', '.join(table)}")
        counts = {split: self.count(table[word], key) for word, split in SPEC_SPLITS.items()}
        self.agree(names=total, **{key: sum(counts.values())})
        return [split for split, count in counts.items() for _ in range(count)]

    def _in_order(self, key: str) -> list[object]:
        table = self.table(key)
        for number in range(len(table)):
            if str(number) not in table:
                self.fail(f"{key!r} has {len(table)} entries and none for {number}")
        return [table[str(number)] for number in range(len(table))]

    def agree(self, **counts: int) -> None:
        """Check that entries which count the same things come to the same number."""
        if len(set(counts.values())) > 1:
            self.fail(", ".join(f"{key} comes to {count}" for key, count in counts.items()))


def _flat_spec(spec: _SpecEntries) -> DatasetSpec:
    names, images = spec.names("class_names"), spec.counts("images_per_class")
    splits = spec.splits("classes_per_split", len(names))
    spec.agree(class_names=len(names), images_per_class=len(images))
    classes = (ClassRecord(name=n, split=s) for n, s in zip(names, splits, strict=True))
    return DatasetSpec(name=spec.text("name"), classes=tuple(classes), images=tuple(images))


def _bilevel_spec(spec: _SpecEntries) -> DatasetSpec:
    names, images = spec.names("class_names"), spec.counts("images_per_class")
    superclasses, sizes = spec.names("superclass_names"), spec.counts("classes_per_superclass")
    splits = spec.splits("superclasses_per_split", len(superclasses))
    spec.agree(superclass_names=len(superclasses), classes_per_superclass=len(sizes))
    spec.agree(class_names=len(names), images_per_class=len(images), classes_per_superclass=sum(sizes))
    owners = (owner for owner, size in enumerate(sizes) for _ in range(size))
    classes = (
        ClassRecord(name=name, split=splits[owner], superclass=superclasses[owner])
        for name, owner in zip(names, owners, strict=True)
    )
    return DatasetSpec(name=spec.text("name"), classes=tuple(classes), images=tuple(images))


def _hierarchical_spec(spec: _SpecEntries) -> DatasetSpec:
    names, images_of = spec.names("class_names"), spec.table("images_per_class")
    classes: list[ClassRecord] = []
    images: list[int] = []
    hierarchy: dict[str, dict[str, tuple[str, ...]]] = {}
    for word, split in SPEC_SPLITS.items():
        nodes, counts = _split_graph(spec, word), images_of.get(word, {})
        leaves = {name for name, node in nodes.items() if not node.children}
        own = names[len(classes) : len(classes) + len(leaves)]
        if set(own) != leaves:
            spec.fail(f"the {len(leaves)} leaves of {word} are not its classes, from {len(classes)}")
        if not isinstance(counts, dict) or not leaves <= counts.keys():
            spec.fail(f"'images_per_class' does not count all classes of {word}")
        classes += (ClassRecord(name=name, split=split, words=nodes[name].words) for name in own)
        images += (spec.count(counts[name], "images_per_class") for name in own)
        hierarchy[split] = {name: node.children for name, node in nodes.items()}
    spec.agree(class_names=len(names), split_subgraphs=len(classes))
    return DatasetSpec(
        name=spec.text("name"), classes=tuple(classes), images=tuple(images), hierarchy=hierarchy
    )


class _GraphNode(NamedTuple):
    words: str
    children: tuple[str, ...]


def _split_graph(spec: _SpecEntries, word: str) -> dict[str, _GraphNode]:
    """The nodes of one split's graph, by WordNet id."""
    entries = spec.table("split_subgraphs").get(word)
    if not isinstance(entries, list):
        spec.fail(f"'split_subgraphs' should have a list for {word}")
    nodes: dict[str, _GraphNode] = {}
    for entry in entries:
        match entry:
            case {"wn_id": str(name), "words": str(words), "children_ids": [*children]}:
                nodes[name] = _GraphNode(words, tuple(str(child) for child in children))
            case _:
                spec.fail(f"{word} has a node without wn_id, words or children_ids: {entry!r:.60}")
    if len(nodes) != len(entries):
        spec.fail(f"{word} lists a node twice")
    for name, node in nodes.items():
        if outside := sorted(set(node.children) - nodes.keys()):
            spec.fail(f"children of {name} are not in {word}: {first_few(outside)}")
    try:
        TopologicalSorter({name: node.children for name, node in nodes.items()}).prepare()
    except CycleError as error:
        spec.fail(f"in {word} a node lies below itself: {first_few(error.args[1])}")
    return nodes


SPEC_READERS: Final[dict[str, Callable[[_SpecEntries], DatasetSpec]]] = {
    "DatasetSpecification": _flat_spec,
    "BiLevelDatasetSpecification": _bilevel_spec,
    "HierarchicalDatasetSpecification": _hierarchical_spec,
}
