"""From the same random state come the episodes of the published code, number by number.

The expected numbers were printed by google-research/meta-dataset's own sampler. A reading cursor per
class ("flush") is state from one episode to the next and has no counterpart here.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.records import ClassRecord, Split
from pipeline.samplers.draw import (
    ClassChooser,
    EpisodeDraw,
    EpisodeRules,
    draw_episode,
    draw_support_size,
    draw_way,
    query_shots,
    support_shots,
)
from pipeline.samplers.hierarchy import FlatChooser, GraphChooser, Hierarchy, SuperclassChooser, class_chooser
from pipeline.samplers.pool import Pool
from pipeline.sources.meta_dataset.classes import official_classes
from tests.pipeline.samplers.synthetic import fake_dataset, official_dataset, split_classes

Pairs = list[tuple[int, int]]
Ints = NDArray[np.int64]


def state(seed: int) -> np.random.RandomState:
    """The published code seeds a sampler with the first number of a generator of its own."""
    return np.random.RandomState(np.random.RandomState(seed).randint(0, 2**32, dtype=np.uint32))


def episodes(
    seed: int, number: int, choose: ClassChooser, counts: Ints, rules: EpisodeRules
) -> list[EpisodeDraw]:
    """The first episodes from one continuing state."""
    random = state(seed)
    return [draw_episode(random, choose, counts, rules) for _ in range(number)]


def pairs(found: EpisodeDraw, first: int = 0) -> Pairs:
    """Class (within its split, of which the pool may lack the first few) and support images."""
    return list(zip((found.classes + first).tolist(), found.shots.tolist(), strict=True))


def flat_counts(split: Split) -> Ints:
    """8, 5 and 7 classes; class i has 20 + 3 i images."""
    counts = np.arange(20) * 3 + 20
    return {"train": counts[:8], "validation": counts[8:13]}.get(split, counts[13:])


def test_ways_are_uniform_between_both_ends() -> None:
    random = np.random.RandomState(0)
    drawn = [draw_way(random, classes, EpisodeRules()) for classes in [30] * 6 + [200] * 6]
    assert drawn == [17, 20, 26, 5, 8, 8, 44, 14, 24, 26, 41, 28]


def test_a_fixed_way_draws_classes_alone() -> None:
    found = FlatChooser(15)(np.random.RandomState(0), EpisodeRules(way=5))
    assert found.tolist() == [1, 6, 8, 9, 14]


@pytest.mark.parametrize(
    ("sizes", "shot", "expected"),
    [
        ([20, 41, 7, 100, 30], None, 3),
        ([20, 41, 60], None, 10),
        ([20, 41, 7, 100, 30], 5, 2),
        ([20, 41, 7, 100, 30], (1, 6), 1),
    ],
)
def test_the_smallest_class_decides_how_many_query_images(
    sizes: list[int], shot: int | tuple[int, int] | None, expected: int
) -> None:
    assert query_shots(np.array(sizes), EpisodeRules(shot=shot)) == expected


def test_the_support_set_is_a_random_fraction_shared_with_noise() -> None:
    sizes, rules, random = np.array([20, 41, 7, 100, 30]), EpisodeRules(), np.random.RandomState(0)
    assert draw_support_size(random, sizes, 3, rules) == 103
    assert support_shots(random, sizes, 3, 103, rules).tolist() == [13, 23, 4, 43, 18]


def test_a_large_support_set_stops_at_its_limit_and_loses_what_rounding_takes() -> None:
    sizes, rules, random = np.full(50, 600), EpisodeRules(), np.random.RandomState(3)
    assert draw_support_size(random, sizes, 10, rules) == 500
    shots = support_shots(random, sizes, 10, 500, rules)
    assert int(shots.sum()) == 476
    assert shots[:10].tolist() == [12, 7, 10, 16, 16, 6, 6, 5, 9, 5]


FLAT: dict[Split, list[Pairs]] = {
    "train": [
        [(0, 6), (3, 7), (7, 10), (5, 8), (4, 9), (6, 11), (2, 16), (1, 9)],
        [(7, 20), (3, 19), (0, 10), (6, 28), (4, 22), (5, 11), (2, 13)],
    ],
    "validation": [[(4, 3), (0, 3), (2, 3), (1, 2), (3, 2)], [(4, 27), (2, 12), (3, 9), (0, 9), (1, 11)]],
    "test": [
        [(0, 26), (3, 27), (1, 23), (5, 27), (4, 32), (6, 36)],
        [(5, 43), (0, 44), (4, 33), (6, 30), (1, 45), (3, 58)],
    ],
}


@pytest.mark.parametrize("split", FLAT)
def test_flat_episodes_are_the_published_ones(split: Split) -> None:
    counts = flat_counts(split)
    found = episodes(42, 2, FlatChooser(len(counts)), counts, EpisodeRules())
    assert [pairs(one) for one in found] == FLAT[split]
    assert [one.query for one in found] == [10, 10]


def test_classes_that_are_too_small_are_gone_before_anything_is_drawn() -> None:
    splits = ["train"] * 8 + ["validation"] * 5 + ["test"] * 7
    dataset = fake_dataset("flat", (np.arange(20) * 3 + 20).tolist(), split_classes(splits))
    pool = Pool.of(dataset, "test", min_examples_in_class=65)
    rules = EpisodeRules(min_way=3)
    (found,) = episodes(42, 1, class_chooser(pool, "auto", rules), pool.counts, rules)
    assert pairs(found, first=2) == [(3, 24), (5, 20), (2, 16), (6, 18)]
    assert found.query == 10


def test_ways_shots_and_queries_can_be_fixed() -> None:
    rules = EpisodeRules(way=5, shot=(2, 6), query=4)
    (found,) = episodes(42, 1, FlatChooser(7), flat_counts("test"), rules)
    assert pairs(found) == [(5, 3), (6, 3), (0, 3), (4, 3), (2, 3)]
    assert found.query == 4
    (same,) = episodes(42, 1, FlatChooser(7), flat_counts("test"), EpisodeRules(way=5, shot=7, query=4))
    assert same.shots.tolist() == [7] * 5


SUPERCLASSES: dict[Split, list[Pairs]] = {
    "train": [
        [(5, 2), (3, 2), (0, 2), (1, 3), (2, 3)],
        [(12, 7), (9, 10), (6, 7), (11, 10), (10, 10), (13, 4)],
    ],
    "validation": [[(1, 4), (3, 4), (0, 3), (4, 3), (2, 3)], [(0, 5), (3, 10), (2, 7), (1, 9), (4, 5)]],
    "test": [[(3, 3), (1, 2), (4, 3), (0, 3), (2, 2)], [(3, 2), (0, 1), (4, 2), (2, 1), (1, 1)]],
}


def with_superclasses(split: str, hierarchy: Hierarchy) -> tuple[Pool, ClassChooser]:
    """2, 1 and 2 superclasses of 6, 8, 5, 5 and 9 classes."""
    splits = ["train"] * 14 + ["validation"] * 5 + ["test"] * 14
    above = [name for name, size in zip("abcde", (6, 8, 5, 5, 9), strict=True) for _ in range(size)]
    pool = Pool.of(fake_dataset("bilevel", [20] * 33, split_classes(splits, above)), split)
    return pool, class_chooser(pool, hierarchy, EpisodeRules())


@pytest.mark.parametrize("split", SUPERCLASSES)
def test_episodes_of_one_superclass_are_the_published_ones(split: Split) -> None:
    pool, choose = with_superclasses(split, "auto")
    assert isinstance(choose, SuperclassChooser)
    found = episodes(42, 2, choose, pool.counts, EpisodeRules())
    assert [pairs(one) for one in found] == SUPERCLASSES[split]


def test_superclasses_can_be_ignored() -> None:
    pool, choose = with_superclasses("test", "flat")
    (found,) = episodes(42, 1, choose, pool.counts, EpisodeRules())
    assert pairs(found) == [
        *[(5, 5), (6, 4), (4, 2), (1, 4), (8, 2), (11, 5), (3, 3)],
        *[(0, 3), (12, 2), (7, 2), (9, 3), (2, 5), (13, 3), (10, 6)],
    ]


def small_graph(rules: EpisodeRules) -> tuple[Pool, ClassChooser]:
    """Nodes n00 to n03 above leaves n10 to n23, of which n14 has two parents."""
    leaves = [f"n{i}" for i in range(10, 24)]
    graph = {
        "n00": ("n01", "n02", "n03"),
        "n01": tuple(leaves[:5]),
        "n02": tuple(leaves[4:12]),
        "n03": tuple(leaves[12:]),
        **dict.fromkeys(leaves, ()),
    }
    records = [ClassRecord(name=leaf, split="train") for leaf in leaves]
    pool = Pool.of(
        fake_dataset("dag", list(range(30, 170, 10)), records, hierarchy={"train": graph}), "train"
    )
    return pool, class_chooser(pool, "auto", rules)


def test_the_nodes_that_span_enough_classes_can_be_drawn() -> None:
    _, choose = small_graph(EpisodeRules())
    assert isinstance(choose, GraphChooser)
    spans = [span.tolist() for span in choose.spans]
    assert spans == [list(range(14)), list(range(5)), list(range(4, 12))]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            EpisodeRules(),
            [
                [(4, 18), (5, 26), (6, 53), (7, 46), (8, 81), (9, 75), (10, 51), (11, 96)],
                [(4, 16), (5, 23), (6, 29), (7, 54), (8, 70), (9, 38), (10, 80), (11, 44)],
                [
                    *[(0, 18), (1, 17), (2, 21), (3, 19), (4, 17), (5, 40), (6, 20)],
                    *[(7, 49), (8, 47), (9, 43), (10, 59), (11, 39), (12, 52), (13, 53)],
                ],
            ],
        ),
        (
            EpisodeRules(max_way=6),
            [
                [(9, 20), (10, 20), (4, 11), (7, 19), (5, 16), (11, 67)],
                [(11, 75), (7, 90), (4, 38), (10, 120), (8, 100), (9, 39)],
            ],
        ),
        (
            EpisodeRules(ignore_hierarchy_probability=1.0),
            [[(6, 39), (10, 29), (13, 24), (11, 26), (1, 9), (4, 25), (5, 34)]],
        ),
    ],
)
def test_episodes_below_a_node_are_the_published_ones(rules: EpisodeRules, expected: list[Pairs]) -> None:
    pool, choose = small_graph(rules)
    found = episodes(42, len(expected), choose, pool.counts, rules)
    assert [pairs(one) for one in found] == expected


def first_official(dataset: str, split: str, seed: int, rules: EpisodeRules | None = None) -> EpisodeDraw:
    """The first episode of a real dataset."""
    pool = Pool.of(official_dataset(dataset), split)
    rules = rules or EpisodeRules()
    return episodes(seed, 1, class_chooser(pool, "auto", rules), pool.counts, rules)[0]


def test_aircrafts_first_episodes_are_the_published_ones() -> None:
    assert pairs(first_official("aircraft", "test", 1234)) == [
        *[(14, 17), (0, 37), (13, 23), (8, 29), (3, 16), (9, 41), (1, 25), (2, 15)],
        *[(11, 43), (10, 54), (7, 25), (5, 20), (6, 46), (12, 50), (4, 51)],
    ]
    fixed = first_official("aircraft", "train", 0, EpisodeRules(way=5, shot=1, query=15))
    assert fixed.classes.tolist() == [6, 13, 32, 25, 58]


def test_omniglots_first_episode_is_the_published_one() -> None:
    found = first_official("omniglot", "validation", 5)
    assert pairs(found) == [
        *[(22, 5), (14, 4), (25, 4), (18, 5), (16, 7), (26, 7), (24, 8), (15, 5), (20, 5)]
    ]


@pytest.mark.parametrize(
    ("dataset", "split", "way", "support", "first"),
    [
        ("ilsvrc_2012", "test", 8, 60, [(19, 8), (28, 8), (34, 10), (35, 5), (54, 7)]),
        ("ilsvrc_2012", "train", 15, 112, [(192, 9), (193, 9), (194, 11), (195, 6), (196, 8)]),
        ("ilsvrc_2012_v2", "train", 8, 380, [(555, 38), (569, 46), (656, 35), (675, 45), (717, 75)]),
    ],
)
def test_imagenets_first_episodes_are_the_published_ones(
    dataset: str, split: str, way: int, support: int, first: Pairs
) -> None:
    found = first_official(dataset, split, 11)
    assert pairs(found)[:5] == first
    assert (len(found.classes), int(found.shots.sum()), found.query) == (way, support, 10)


@pytest.mark.parametrize(
    ("dataset", "mean_way", "mean_support", "most_support", "most_shots"),
    [
        ("aircraft", 10.02, 336.2, 498, 90),
        ("omniglot", 19.31, 92.9, 373, 10),
        ("quickdraw", 27.47, 425.9, 498, 221),
        ("fungi", 27.48, 362.2, 496, 235),
        ("traffic_sign", 23.60, 422.1, 498, 288),
        ("mscoco", 22.45, 417.5, 499, 362),
        ("cu_birds", 17.51, 310.8, 494, 50),
        ("dtd", 5.97, 282.9, 498, 110),
        ("vgg_flower", 10.54, 287.2, 497, 186),
    ],
)
def test_two_thousand_test_episodes_have_the_published_means_and_maxima(
    dataset: str, mean_way: float, mean_support: float, most_support: int, most_shots: int
) -> None:
    # Only the law is under test: a class of 340,000 drawings needs no rows here.
    full = np.array([entry.images for entry in official_classes(dataset)])
    pool = Pool.of(official_dataset(dataset, cap=20), "test")
    found = episodes(
        99, 2000, class_chooser(pool, "auto", EpisodeRules()), full[pool.class_ids], EpisodeRules()
    )
    assert round(float(np.mean([len(one.classes) for one in found])), 2) == mean_way
    assert round(float(np.mean([one.shots.sum() for one in found])), 1) == mean_support
    assert max(int(one.shots.sum()) for one in found) == most_support
    assert max(int(one.shots.max()) for one in found) == most_shots


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_way": 0}, "start at 1"),
        ({"query": 0}, "start at 1"),
        ({"shot": (0, 3)}, "start at 1"),
        ({"min_way": 9, "max_way": 8}, "from its lower to its upper end"),
        ({"shot": (5, 2)}, "from its lower to its upper end"),
        ({"log_weights": (1.0, 0.0)}, "log_weights go from lower to upper"),
        ({"log_weights": (0.0, float("nan"))}, "log_weights go from lower to upper"),
        ({"ignore_hierarchy_probability": 1.5}, "is 0 to 1"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EpisodeRules(**options)  # type: ignore[arg-type]
