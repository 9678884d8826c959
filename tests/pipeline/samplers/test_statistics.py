"""10,000 episodes are distributed as those of the published algorithm, written down here again.

`ReferenceSampler` follows the published description in plain loops, with Python's own random numbers, and
shares no code with the sampler. Each histogram takes one value of an episode, so that its values are
independent. Both seeds are 0: the first choice, and the only one tried.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from pipeline.index import Dataset
from pipeline.samplers.draw import EpisodeRules, draw_episode
from pipeline.samplers.hierarchy import class_chooser
from pipeline.samplers.meta_dataset import MetaDataset
from pipeline.samplers.mixture import random_state
from pipeline.samplers.pool import Pool
from tests.pipeline.samplers import chi_square
from tests.pipeline.samplers.synthetic import official_dataset, shard_set

EPISODES = 10_000
P = 0.01


class ReferenceSampler:
    """An episode as class ids, shots and queries."""

    def __init__(self, dataset: Dataset, split: str, seed: int) -> None:
        self.random = random.Random(seed)
        records = dataset.manifest.classes
        self.ids = [i for i, record in enumerate(records) if record.split == split]
        self.counts = np.bincount(dataset.index["class_id"], minlength=len(records)).tolist()
        self.names = {records[i].name: i for i in self.ids}
        self.alphabets: dict[str, list[int]] = {}
        for i in self.ids:
            if records[i].superclass:
                self.alphabets.setdefault(records[i].superclass, []).append(i)
        self.graph = dataset.manifest.hierarchy.get(split, {})
        below = [self.below(node) for node in self.graph if self.graph[node]]
        self.nodes = [classes for classes in below if 5 <= len(classes) <= 392]

    def below(self, node: str) -> set[int]:
        children = self.graph[node]
        if not children:
            return {self.names[node]}
        return set().union(*(self.below(child) for child in children))

    def classes(self) -> list[int]:
        if self.nodes:
            span = sorted(self.random.choice(self.nodes))
            return span if len(span) <= 50 else self.random.sample(span, 50)
        candidates = self.ids
        if self.alphabets:
            candidates = self.random.choice(list(self.alphabets.values()))
        way = self.random.randint(5, min(50, len(candidates)))
        return self.random.sample(candidates, way)

    def episode(self) -> tuple[list[int], list[int], int]:
        classes = self.classes()
        sizes = [self.counts[c] for c in classes]
        query = min(10, *(size // 2 for size in sizes))
        beta = self.random.random()
        support = 0
        for size in sizes:
            support += math.floor(beta * min(100, size - query) + 1)
        support = min(500, support)
        weights = [size * math.exp(self.random.uniform(math.log(0.5), math.log(2))) for size in sizes]
        shots = []
        for size, weight in zip(sizes, weights, strict=True):
            share = math.floor(weight / sum(weights) * (support - len(sizes))) + 1
            shots.append(min(share, size - query))
        return classes, shots, query


class EpisodeValues(NamedTuple):
    """One value of each kind for every episode."""

    way: list[int]
    support: list[int]
    shots: list[int]
    """Of one class of the episode, each in turn."""
    class_ids: list[int]
    """Of the same class."""
    query: list[int]


def episode_values(episodes: Sequence[tuple[Sequence[int], Sequence[int], int]]) -> EpisodeValues:
    turns = [number % len(classes) for number, (classes, _, _) in enumerate(episodes)]
    return EpisodeValues(
        way=[len(classes) for classes, _, _ in episodes],
        support=[sum(shots) for _, shots, _ in episodes],
        shots=[shots[turn] for turn, (_, shots, _) in zip(turns, episodes, strict=True)],
        class_ids=[classes[turn] for turn, (classes, _, _) in zip(turns, episodes, strict=True)],
        query=[query for _, _, query in episodes],
    )


def sampler_values(dataset: Dataset, split: str, seed: int, rules: EpisodeRules) -> EpisodeValues:
    """The sampler's, without drawing images."""
    pool = Pool.of(dataset, split)
    choose = class_chooser(pool, "auto", rules)
    episodes = []
    for number in range(EPISODES):
        found = draw_episode(random_state(seed, number), choose, pool.counts, rules)
        classes = pool.class_ids[found.classes]
        episodes.append((classes.tolist(), found.shots.tolist(), found.query))
    return episode_values(episodes)


@cache
def reference_values(name: str) -> EpisodeValues:
    """The reference's."""
    reference = ReferenceSampler(official_dataset(name), "train", seed=0)
    return episode_values([reference.episode() for _ in range(EPISODES)])


def p_values(first: EpisodeValues, second: EpisodeValues) -> Mapping[str, float]:
    pairs = zip(EpisodeValues._fields, first, second, strict=True)
    return {name: chi_square.same_distribution(a, b) for name, a, b in pairs}


@pytest.mark.parametrize("name", ["fungi", "omniglot", "ilsvrc_2012"])
def test_ways_shots_and_classes_are_distributed_as_published(name: str) -> None:
    found = p_values(
        sampler_values(official_dataset(name), "train", 0, EpisodeRules()), reference_values(name)
    )
    assert all(p > P for p in found.values()), found


@pytest.mark.parametrize(
    ("rules", "shown_by"),
    [
        (EpisodeRules(max_way=49), "way"),
        (EpisodeRules(max_query=9), "query"),
        (EpisodeRules(max_support=490), "support"),
        (EpisodeRules(max_support_per_class=80), "support"),
        (EpisodeRules(log_weights=(-0.5, 0.5)), "support"),
    ],
)
def test_a_constant_that_is_a_little_wrong_is_found_out(rules: EpisodeRules, shown_by: str) -> None:
    wrong = sampler_values(official_dataset("fungi"), "train", 0, rules)
    assert p_values(wrong, reference_values("fungi"))[shown_by] < P


@pytest.mark.parametrize("name", ["aircraft", "omniglot"])
def test_plans_have_the_law_and_every_image_is_equally_likely(name: str) -> None:
    dataset = official_dataset(name)
    sampler = MetaDataset(shard_set(dataset), split="train", seed=0)
    reference = ReferenceSampler(dataset, "train", seed=0)
    plans = [sampler[number] for number in range(1000)]
    episodes = [(p.classes, p.shots.tolist(), len(p.query) // p.way) for p in plans]
    found = p_values(episode_values(episodes), episode_values([reference.episode() for _ in range(1000)]))
    assert all(p > P for p in found.values()), found
    first = np.array([plan.support.rows[0] for plan in plans])  # of each episode, one image
    places = first - dataset.index.class_starts[dataset.index["class_id"][first]]
    assert chi_square.equal_chances(np.bincount(places, minlength=int(places.max()) + 1)) > P
