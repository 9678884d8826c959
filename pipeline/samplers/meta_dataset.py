"""Episodes of varying way and shot, as Meta-Dataset publishes them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipeline.episodes import EpisodePlan
from pipeline.errors import UsageError, check_choice, first_few
from pipeline.samplers.draw import ClassChooser, EpisodeRules, draw_episode
from pipeline.samplers.hierarchy import HIERARCHIES, GraphChooser, Hierarchy, class_chooser
from pipeline.samplers.mixture import DatasetMixture, checked_seed, random_state
from pipeline.samplers.pool import Pool
from pipeline.shardset import ShardSet

log = logging.getLogger(__name__)


class _PoolChooser(NamedTuple):
    """A pool, and what draws its classes."""

    pool: Pool
    choose: ClassChooser


class MetaDataset:
    """Meta-Dataset's episodes without end; `sampler[number]` depends on the seed and the number alone.

    A dataset is drawn (equally often, or by `weights`), then classes according to its hierarchy, then the
    number of images of each. `draw.EpisodeRules` documents the numbers. `hierarchy` is one word for all
    datasets, or one for each that is not "auto": LITE draws ImageNet with {"ilsvrc_2012": "flat"}.
    An episode never has an image twice, and every choice of a class's images is equally likely.
    """

    def __init__(  # noqa: PLR0913  (all but the shard set by name)
        self,
        shards: ShardSet,
        *,
        split: str = "train",
        seed: int = 0,
        datasets: Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        hierarchy: Hierarchy | Mapping[str, Hierarchy] = "auto",
        min_examples_in_class: int = 0,
        min_way: int = EpisodeRules.min_way,
        max_way: int = EpisodeRules.max_way,
        max_query: int = EpisodeRules.max_query,
        max_support: int = EpisodeRules.max_support,
        max_support_per_class: int = EpisodeRules.max_support_per_class,
        log_weights: tuple[float, float] = EpisodeRules.log_weights,
        ignore_hierarchy_probability: float = EpisodeRules.ignore_hierarchy_probability,
        max_spanning_leaves: int = EpisodeRules.max_spanning_leaves,
        way: int | None = EpisodeRules.way,
        shot: int | tuple[int, int] | None = EpisodeRules.shot,
        query: int | None = EpisodeRules.query,
    ) -> None:
        self.seed, self.split = checked_seed(seed), split
        self.rules = EpisodeRules(
            min_way=min_way,
            max_way=max_way,
            max_query=max_query,
            max_support=max_support,
            max_support_per_class=max_support_per_class,
            log_weights=log_weights,
            ignore_hierarchy_probability=ignore_hierarchy_probability,
            max_spanning_leaves=max_spanning_leaves,
            way=way,
            shot=shot,
            query=query,
        )
        self._mixture = DatasetMixture.of(shards, split, datasets, weights, min_examples_in_class)
        self._choosers = _pool_choosers(self._mixture.pools, hierarchy, self.rules)

    def __getitem__(self, number: int, /) -> EpisodePlan:
        random = random_state(self.seed, number)
        pool, choose = self._choosers[self._mixture.draw(random)]
        classes, shots, query = draw_episode(random, choose, pool.counts, self.rules)
        return pool.plan(random, number, classes, shots, query)

    def __repr__(self) -> str:
        changed = (
            f"{name}={value!r}"
            for name, value in vars(self.rules).items()
            if value != getattr(EpisodeRules, name)
        )
        options = ", ".join([repr(self.split), f"seed={self.seed}", *changed])
        return f"MetaDataset({options}, of {self._mixture})"


def _pool_choosers(
    pools: Sequence[Pool], hierarchy: Hierarchy | Mapping[str, Hierarchy], rules: EpisodeRules
) -> list[_PoolChooser]:
    names = [pool.name for pool in pools]
    chosen: Mapping[str, Hierarchy] = (
        dict.fromkeys(names, hierarchy) if isinstance(hierarchy, str) else hierarchy
    )
    if unknown := set(chosen) - set(names):
        raise UsageError(
            f"hierarchy= names {', '.join(sorted(unknown))}; the datasets are {', '.join(names)}"
        )
    for value in chosen.values():
        check_choice(value, HIERARCHIES, "hierarchy=")
    return [_pool_chooser(pool, chosen.get(pool.name, "auto"), rules) for pool in pools]


def _pool_chooser(pool: Pool, hierarchy: Hierarchy, rules: EpisodeRules) -> _PoolChooser:
    choose = class_chooser(pool, hierarchy, rules)
    most = rules.way or min(rules.max_way, len(pool))
    if rules.shot is None and rules.max_support < most:
        raise UsageError(
            f"{pool}: max_support is {rules.max_support} and an episode may have {most} classes, each "
            "with an image or more; raise max_support or lower max_way"
        )
    if isinstance(choose, GraphChooser) and len(choose.unreachable):
        names = [pool.dataset.manifest.classes[pool.class_ids[i]].name for i in choose.unreachable]
        log.warning(
            "%s: no node that can be drawn spans %d classes (%s); hierarchy='flat' draws them too",
            *(pool, len(names), first_few(names)),
        )
    return _PoolChooser(pool, choose)
