"""The hierarchy of a dataset decides which classes meet."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.index import Dataset
from pipeline.records import ClassRecord
from pipeline.samplers.draw import EpisodeRules
from pipeline.samplers.hierarchy import (
    FlatChooser,
    GraphChooser,
    Hierarchy,
    SuperclassChooser,
    _spanned_leaves,
    class_chooser,
)
from pipeline.samplers.pool import Pool
from tests.pipeline.samplers.synthetic import fake_dataset, official_dataset, split_classes


def chooser_of(dataset: Dataset, split: str = "train") -> object:
    return class_chooser(Pool.of(dataset, split), "auto", EpisodeRules())


def test_a_dataset_says_itself_how_its_classes_are_drawn() -> None:
    assert isinstance(chooser_of(official_dataset("aircraft")), FlatChooser)
    assert isinstance(chooser_of(official_dataset("ilsvrc_2012", cap=2)), GraphChooser)
    alphabets = chooser_of(official_dataset("omniglot"))
    assert isinstance(alphabets, SuperclassChooser)
    assert [len(members) for members in alphabets.members][:3] == [29, 26, 41]
    assert len(alphabets.members) == 25


def test_orbits_users_are_no_superclasses() -> None:
    records = split_classes(["train"] * 6, ["P1"] * 6)
    assert isinstance(chooser_of(fake_dataset("characters", [3] * 6, records)), SuperclassChooser)
    orbit = fake_dataset("orbit", [3] * 6, records, words={"user": ["P1"] * 18})
    assert isinstance(chooser_of(orbit), FlatChooser)


@pytest.mark.parametrize(
    ("name", "split", "nodes", "spans", "unreachable"),
    [
        ("ilsvrc_2012", "train", 113, (5, 392), 0),
        ("ilsvrc_2012", "validation", 18, (5, 158), 0),
        ("ilsvrc_2012", "test", 15, (6, 130), 0),
        ("ilsvrc_2012_v2", "train", 145, (5, 358), 6),
    ],
)
def test_imagenets_graphs_have_the_published_nodes(
    name: str, split: str, nodes: int, spans: tuple[int, int], unreachable: int
) -> None:
    graph = chooser_of(official_dataset(name, cap=2), split)
    assert isinstance(graph, GraphChooser)
    assert len(graph.spans) == nodes
    assert (min(map(len, graph.spans)), max(map(len, graph.spans))) == spans
    assert len(graph.unreachable) == unreachable


def test_a_leaf_below_two_parents_counts_once_and_a_circle_ends() -> None:
    leaves = [f"n{i}" for i in range(6)]
    records = [ClassRecord(name=leaf, split="train") for leaf in leaves]
    graph = {
        "a": ("b", "c"),
        "b": ("c", "n0", "n1", "n2"),
        "c": ("a", "n2", "n3", "n4", "n5"),
        **dict.fromkeys(leaves, ()),
    }
    found = chooser_of(fake_dataset("round", [9] * 6, records, hierarchy={"train": graph}))
    assert isinstance(found, GraphChooser)
    assert [span.tolist() for span in found.spans] == [[0, 1, 2, 3, 4, 5]] * 3


@pytest.mark.parametrize(
    ("hierarchy", "rules", "message"),
    [
        ("superclass", EpisodeRules(), "classes have no superclasses"),
        ("dag", EpisodeRules(), "there is no graph above"),
        ("flat", EpisodeRules(min_way=9), r"of 9 classes is asked for and birds, train has 8"),
        ("flat", EpisodeRules(way=9), r"of 9 classes is asked for"),
        ("flat", EpisodeRules(shot=4, query=2), r"needs 6 images of each class, and class 'class 3'"),
        ("flat", EpisodeRules(shot=(1, 5)), r"needs 6 images .* 'class 3' of birds, train has 5"),
    ],
)
def test_what_a_dataset_cannot_give_is_refused(
    hierarchy: Hierarchy, rules: EpisodeRules, message: str
) -> None:
    pool = Pool.of(fake_dataset("birds", [9, 9, 9, 5, 9, 9, 9, 9], split_classes(["train"] * 8)), "train")
    with pytest.raises(UsageError, match=message):
        class_chooser(pool, hierarchy, rules)


def test_a_superclass_that_is_too_small_is_named() -> None:
    records = split_classes(["train"] * 9, ["Greek"] * 5 + ["Latin"] * 4)
    pool = Pool.of(fake_dataset("characters", [20] * 9, records), "train")
    with pytest.raises(UsageError, match=r"superclass 'Latin' has 4 classes and .* 5 or more"):
        class_chooser(pool, "auto", EpisodeRules())
    assert isinstance(class_chooser(pool, "auto", EpisodeRules(min_way=4)), SuperclassChooser)


def test_a_fixed_way_excludes_a_hierarchy() -> None:
    pool = Pool.of(official_dataset("omniglot"), "train")
    with pytest.raises(UsageError, match="hierarchy='flat'"):
        class_chooser(pool, "auto", EpisodeRules(way=5))
    assert isinstance(class_chooser(pool, "flat", EpisodeRules(way=5)), FlatChooser)


def test_a_graph_without_a_fitting_node_says_so() -> None:
    pool = Pool.of(official_dataset("ilsvrc_2012", cap=2), "test")
    with pytest.raises(UsageError, match="no node of its graph spans 100 to 99 "):
        class_chooser(pool, "auto", EpisodeRules(min_way=100, max_way=200, max_spanning_leaves=99))


def test_a_child_that_is_no_node_of_the_graph_is_a_leaf() -> None:
    assert _spanned_leaves({"n1": ("n2", "n3"), "n3": ("n4", "n1")}, "n1") == ["n2", "n4"]
