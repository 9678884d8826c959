"""The ImageNet graph: node counts, leaves and the nodes from which episodes may be drawn."""

from __future__ import annotations

import pytest

from pipeline.sources.wordnet import (
    CARNIVORE,
    DEVICE,
    ENTITY,
    ClassGraph,
    imagenet_nodes,
    leaves_below,
    pruned_graph,
    split_graphs,
)

FEWEST_WAYS, MOST_LEAVES = 5, 392  # Meta-Dataset's limits for the node of an episode
SMALL: ClassGraph = {
    "a": ("b", "c"),
    "b": ("d", "e"),
    "c": ("e", "f"),
    "d": (),
    "e": ("g", "h"),
    "f": (),
    "g": (),
    "h": (),
}


@pytest.mark.parametrize(
    ("split", "all_train", "nodes", "leaves", "eligible", "spans"),
    [
        ("train", False, 1011, 712, 113, (5, 392)),
        ("validation", False, 200, 158, 18, (5, 158)),
        ("test", False, 180, 130, 15, (6, 130)),
        ("train", True, 1399, 1000, 145, (5, 358)),
    ],
)
def test_a_splits_graph_has_the_published_size(
    split: str, nodes: int, leaves: int, eligible: int, spans: tuple[int, int], *, all_train: bool
) -> None:
    graph = split_graphs(all_train=all_train)[split]
    assert len(graph) == nodes
    assert sum(not children for children in graph.values()) == leaves
    counts = [len(leaves_below(graph, name)) for name, children in graph.items() if children]
    drawn = [count for count in counts if FEWEST_WAYS <= count <= MOST_LEAVES]
    assert (len(drawn), (min(drawn), max(drawn))) == (eligible, spans)


@pytest.mark.parametrize("all_train", [False, True])
def test_every_child_is_in_its_own_splits_graph_and_ids_are_sorted(*, all_train: bool) -> None:
    for graph in split_graphs(all_train=all_train).values():
        assert list(graph) == sorted(graph)
        for children in graph.values():
            assert set(children) <= set(graph)
            assert list(children) == sorted(set(children))


def test_each_split_has_one_root_which_spans_all_of_it() -> None:
    for split, root in (("train", ENTITY), ("validation", CARNIVORE), ("test", DEVICE)):
        graph = split_graphs()[split]
        children = {child for node in graph.values() for child in node}
        assert set(graph) - children == {root}
        leaves = {name for name, below in graph.items() if not below}
        assert leaves_below(graph, root) == leaves


def test_no_class_is_in_two_splits() -> None:
    leaves = [name for graph in split_graphs().values() for name, below in graph.items() if not below]
    assert len(leaves) == len(set(leaves)) == 1000


def test_no_node_of_the_first_version_has_a_single_child() -> None:
    assert all(len(below) != 1 for graph in split_graphs().values() for below in graph.values())


def test_six_classes_of_the_second_version_are_below_no_node_that_may_be_drawn() -> None:
    graph = split_graphs(all_train=True)["train"]
    reached: set[str] = set()
    for name, children in graph.items():
        leaves = leaves_below(graph, name)
        if children and FEWEST_WAYS <= len(leaves) <= MOST_LEAVES:
            reached |= leaves
    assert sorted(leaves_below(graph, ENTITY) - reached) == [
        "n03814906",
        "n03938244",
        "n04296562",
        "n04399382",
        "n11939491",
        "n12057211",
    ]


def test_only_classes_have_images_and_every_node_has_words() -> None:
    for node in imagenet_nodes().values():
        assert bool(node.images) == (not node.children)
        assert node.words
    assert imagenet_nodes()["n02075296"].words == "carnivore"


def test_a_leaf_with_two_parents_counts_once_and_spans_itself() -> None:
    assert leaves_below(SMALL, "a") == {"d", "f", "g", "h"}
    assert leaves_below(SMALL, "c") == {"f", "g", "h"}
    assert leaves_below(SMALL, "d") == {"d"}


def test_a_node_that_keeps_one_child_gives_its_place_to_that_child() -> None:
    assert pruned_graph(SMALL, "a", {"d", "f", "g"}) == {
        "a": ("b", "c"),
        "b": ("d", "g"),
        "c": ("f", "g"),
        "d": (),
        "f": (),
        "g": (),
    }
    assert pruned_graph(SMALL, "a", {"d", "g"}) == {"b": ("d", "g"), "d": (), "g": ()} | {"a": ("b", "g")}
    assert pruned_graph(SMALL, "b", {"d"}) == {"d": ()}
