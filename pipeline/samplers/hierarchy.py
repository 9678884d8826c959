"""How the classes of an episode of Meta-Dataset are drawn: any, those of one superclass, or below a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.samplers.draw import ClassChooser, EpisodeRules, draw_way
from pipeline.samplers.pool import Pool

Hierarchy: TypeAlias = Literal["auto", "flat", "superclass", "dag"]
"""auto: the dataset's graph if it has one, else its superclasses if it has them (except ORBIT's users)."""

HIERARCHIES: Final[tuple[Hierarchy, ...]] = get_args(Hierarchy)


@dataclass(frozen=True, slots=True)
class FlatChooser:
    """Draws from all classes."""

    classes: int

    def __call__(self, random: np.random.RandomState, rules: EpisodeRules) -> NDArray[np.int64]:
        way = draw_way(random, self.classes, rules)
        return np.asarray(random.choice(self.classes, way, replace=False), np.int64)


@dataclass(frozen=True, slots=True)
class SuperclassChooser:
    """Draws classes of one superclass (Omniglot: characters of one alphabet), each equally likely."""

    members: tuple[NDArray[np.int64], ...]
    flat: FlatChooser

    def __call__(self, random: np.random.RandomState, rules: EpisodeRules) -> NDArray[np.int64]:
        if _ignores_hierarchy(random, rules):
            return self.flat(random, rules)
        members = self.members[int(random.choice(len(self.members), 1)[0])]
        way = draw_way(random, len(members), rules)
        return members[random.choice(len(members), way, replace=False)]


@dataclass(frozen=True, slots=True)
class GraphChooser:
    """Draws the classes below one node (ImageNet: of WordNet), all of them unless they are too many."""

    spans: tuple[NDArray[np.int64], ...]
    """The classes below each node that can be drawn."""
    flat: FlatChooser

    def __call__(self, random: np.random.RandomState, rules: EpisodeRules) -> NDArray[np.int64]:
        if _ignores_hierarchy(random, rules):
            return self.flat(random, rules)
        span = self.spans[int(random.randint(0, len(self.spans)))]
        if len(span) <= rules.max_way:
            return span
        return np.asarray(random.choice(span, rules.max_way, replace=False), np.int64)

    @property
    def unreachable(self) -> NDArray[np.int64]:
        """Classes that are below no node that can be drawn."""
        return np.setdiff1d(np.arange(self.flat.classes), np.concatenate(self.spans))


def class_chooser(pool: Pool, hierarchy: Hierarchy, rules: EpisodeRules) -> ClassChooser:
    """What draws the classes of a pool. Raises UsageError if the pool does not allow it."""
    kind = _own_hierarchy(pool) if hierarchy == "auto" else hierarchy
    if kind != "flat" and rules.way is not None:
        raise UsageError(f"{pool}: a fixed way needs classes drawn without a hierarchy; add hierarchy='flat'")
    if kind == "superclass":
        return _superclass_chooser(pool, rules)
    if kind == "dag":
        return _graph_chooser(pool, rules)
    pool.require(classes=rules.way or rules.min_way, images=rules.images)
    return FlatChooser(len(pool))


def _ignores_hierarchy(random: np.random.RandomState, rules: EpisodeRules) -> bool:
    """Whether to ignore the hierarchy; drawn even if the answer is certain, as in the published code."""
    probability = rules.ignore_hierarchy_probability
    return not random.choice([True, False], p=[1 - probability, probability])


def _own_hierarchy(pool: Pool) -> Hierarchy:
    if pool.dataset.manifest.hierarchy.get(pool.split):
        return "dag"
    # The superclass of ORBIT's objects is their user, which its own sampler deals with.
    has_users = pool.dataset.index.words["user"] not in ((), ("",))
    return "superclass" if pool.superclasses and not has_users else "flat"


def _superclass_chooser(pool: Pool, rules: EpisodeRules) -> SuperclassChooser:
    members = pool.superclasses
    if not members:
        raise UsageError(f"{pool}: its classes have no superclasses; use hierarchy='flat'")
    pool.require(classes=rules.min_way, images=rules.images)
    smallest = min(members, key=lambda name: len(members[name]))
    if len(members[smallest]) < rules.min_way:
        raise UsageError(
            f"{pool}: superclass {smallest!r} has {len(members[smallest])} classes and an episode has "
            f"{rules.min_way} or more; lower min_way, or use hierarchy='flat'"
        )
    return SuperclassChooser(tuple(members.values()), FlatChooser(len(pool)))


def _graph_chooser(pool: Pool, rules: EpisodeRules) -> GraphChooser:
    graph = pool.dataset.manifest.hierarchy.get(pool.split, {})
    if not graph:
        raise UsageError(f"{pool}: there is no graph above its classes; use hierarchy='flat'")
    pool.require(classes=rules.min_way, images=rules.images)
    names = (pool.dataset.manifest.classes[class_id].name for class_id in pool.class_ids)
    positions = {name: position for position, name in enumerate(names)}
    spans = []
    for node in sorted(name for name, children in graph.items() if children):
        leaves = _spanned_leaves(graph, node)
        span = [positions[leaf] for leaf in leaves if leaf in positions]
        if rules.min_way <= len(span) <= rules.max_spanning_leaves:
            spans.append(np.array(span, np.int64))
    if not spans:
        raise UsageError(
            f"{pool}: no node of its graph spans {rules.min_way} to {rules.max_spanning_leaves} "
            "classes; lower min_way, or use hierarchy='flat'"
        )
    return GraphChooser(tuple(spans), FlatChooser(len(pool)))


def _spanned_leaves(graph: Mapping[str, Sequence[str]], node: str) -> list[str]:
    """The leaves that a node spans, sorted; one that is reached twice counts once."""
    leaves, seen, waiting = [], {node}, [node]
    while waiting:
        name = waiting.pop()
        children = graph.get(name, ())
        if not children:
            leaves.append(name)
        new = [child for child in children if child not in seen]
        seen.update(new)
        waiting += new
    return sorted(leaves)
