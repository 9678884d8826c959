"""ImageNet's 1000 classes as the leaves of a WordNet graph, and Meta-Dataset's split of that graph.

A node may have several parents. Nodes with a single child say nothing and are left out, but for two
that Meta-Dataset's second version has and that are kept here, so that the graphs are equal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Final, NamedTuple, TypeAlias

from pipeline.sources.facts import fact_rows

Graph: TypeAlias = Mapping[str, tuple[str, ...]]
"""A WordNet id and its children, sorted; leaves have none."""

ENTITY: Final = "n00001740"
CARNIVORE: Final = "n02075296"
DEVICE: Final = "n03183080"


class Node(NamedTuple):
    words: str
    pictures: int
    """Of a class, as Meta-Dataset counts them (duplicates with other datasets left out)."""
    children: tuple[str, ...]


@cache
def imagenet() -> Mapping[str, Node]:
    """Every node above the 1000 classes, and the classes, by WordNet id."""
    return {
        name: Node(words, int(pictures), tuple(children.split()))
        for name, pictures, children, words in fact_rows("ilsvrc_2012")
    }


def leaves_below(graph: Graph, node: str) -> frozenset[str]:
    """The leaves that a node spans; a leaf spans itself."""
    found: set[str] = set()
    seen, waiting = {node}, [node]
    while waiting:
        children = graph[waiting[-1]]
        name = waiting.pop()
        if not children:
            found.add(name)
        waiting += (child for child in children if child not in seen)
        seen.update(children)
    return frozenset(found)


def graph_of(graph: Graph, root: str, keep: Collection[str]) -> Graph:
    """The part below `root` that leads to the leaves in `keep`, without nodes of a single child."""
    kept: dict[str, tuple[str, ...]] = {}
    stands_for: dict[str, str] = {}  # the node that takes its place; "" where nothing is left

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
def split_graphs(*, all_train: bool = False) -> Mapping[str, Graph]:
    """Meta-Dataset's graph of each split: its first version, or its second with all classes in train."""
    graph = {name: node.children for name, node in imagenet().items()}
    if all_train:
        return {"train": graph, "validation": {}, "test": {}}
    every = leaves_below(graph, ENTITY)
    validation, test = leaves_below(graph, CARNIVORE), leaves_below(graph, DEVICE)
    return {
        "train": graph_of(graph, ENTITY, every - validation - test),
        "validation": graph_of(graph, CARNIVORE, validation),
        "test": graph_of(graph, DEVICE, test),
    }
