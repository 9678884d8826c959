"""ImageNet's 1000 classes as the leaves of a WordNet graph, and Meta-Dataset's split of that graph.

A node may have several parents. Nodes with a single child are redundant and left out, except two that
Meta-Dataset's second version has and that are kept here, so that the graphs are equal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Final, NamedTuple, TypeAlias

from pipeline.sources.facts import fact_rows

ClassGraph: TypeAlias = Mapping[str, tuple[str, ...]]
"""A WordNet id and its children, sorted; leaves have none."""

ENTITY: Final = "n00001740"
CARNIVORE: Final = "n02075296"
DEVICE: Final = "n03183080"


class WordNetNode(NamedTuple):
    """A WordNet id's row of `facts/ilsvrc_2012.tsv`."""

    words: str
    images: int
    """In a class, as Meta-Dataset counts them (duplicates with other datasets left out)."""
    children: tuple[str, ...]


@cache
def imagenet_nodes() -> Mapping[str, WordNetNode]:
    """The 1000 classes and every node above them, by WordNet id."""
    return {
        name: WordNetNode(words, int(images), tuple(children.split()))
        for name, images, children, words in fact_rows("ilsvrc_2012")
    }


def leaves_below(graph: ClassGraph, node: str) -> frozenset[str]:
    """The leaves below a node; a leaf is below itself."""
    leaves: set[str] = set()
    seen, waiting = {node}, [node]
    while waiting:
        children = graph[waiting[-1]]
        name = waiting.pop()
        if not children:
            leaves.add(name)
        waiting += (child for child in children if child not in seen)
        seen.update(children)
    return frozenset(leaves)


def pruned_graph(graph: ClassGraph, root: str, keep: Collection[str]) -> ClassGraph:
    """The part of the graph from `root` to the leaves in `keep`, without nodes that have a single child."""
    kept: dict[str, tuple[str, ...]] = {}
    stands_for: dict[str, str] = {}  # the node that replaces it; "" where nothing is left

    def visit(name: str) -> str:
        if name not in stands_for:
            children = sorted({visit(child) for child in graph[name]} - {""})
            if len(children) > 1 or name in keep:
                kept[name] = tuple(children)
            stands_for[name] = name if name in kept else "".join(children)
        return stands_for[name]

    visit(root)
    return dict(sorted(kept.items()))


@cache
def split_graphs(*, all_train: bool = False) -> Mapping[str, ClassGraph]:
    """Meta-Dataset's graph of each split: its first version, or its second with all classes in train."""
    graph = {name: node.children for name, node in imagenet_nodes().items()}
    if all_train:
        return {"train": graph, "validation": {}, "test": {}}
    all_leaves = leaves_below(graph, ENTITY)
    validation, test = leaves_below(graph, CARNIVORE), leaves_below(graph, DEVICE)
    return {
        "train": pruned_graph(graph, ENTITY, all_leaves - validation - test),
        "validation": pruned_graph(graph, CARNIVORE, validation),
        "test": pruned_graph(graph, DEVICE, test),
    }
