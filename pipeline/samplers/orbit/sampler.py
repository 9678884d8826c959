"""ORBIT's tasks: clips of a user's objects, to learn from clean videos and to find in others.

Massiceti et al., ORBIT, ICCV 2021 (arXiv:2104.03841); its published protocols are in `orbit_rules`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.episodes import (
    ORBIT_ORDER_DRAW,
    ORBIT_QUERY_DRAW,
    EpisodePlan,
    Side,
    generator,
    philox,
)
from pipeline.samplers.orbit.clips import Ints, draw_clips, subsets, whole_videos
from pipeline.samplers.orbit.rules import LEAST_WAY, ProtocolName, published
from pipeline.samplers.orbit.videos import QUERY, SUPPORT, Dropped, list_videos
from pipeline.shardset import ShardSet


class Orbit:
    """ORBIT's episodes by number.

    In training a number is an epoch and a place in it: each epoch has `tasks_per_user` tasks of each
    user, shuffled, without end. Validation and test are `len` tasks, in order of user.

    Further keywords are the fields of `orbit_rules.Rules`, and those of `Draw` as `support_...` and
    `query_...`: `mode="cle-ve", tasks_per_user=10, support_clip_count=4`. What is not given is as the
    protocol has it. Label i is the i-th of the task's objects in order of name. A row may repeat: that
    is padding. The video of a row is `dataset.index["group"][row]`.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        split: str,
        protocol: ProtocolName = "2021",
        dataset: str = "orbit",
        seed: int = 0,
        **changes: Any,
    ) -> None:
        philox(seed, 0)  # refuses a bad seed now
        self.split = split
        self.protocol = protocol
        self.seed = seed
        self.rules = published(protocol, split, changes)
        self.dataset = shards[dataset]
        self._videos = list_videos(self.dataset, split, self.rules)

    @property
    def users(self) -> tuple[str, ...]:
        """Those that tasks are drawn of, in order."""
        return self._videos.users

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """The videos, objects and users that the rules leave out, and why."""
        return self._videos.dropped

    @property
    def tasks(self) -> int:
        """In an epoch of training; in all otherwise."""
        return len(self.users) * self.rules.tasks_per_user

    def __len__(self) -> int:
        if self.rules.training:
            raise TypeError("training tasks have no end; an epoch has sampler.tasks of them")
        return self.tasks

    def __repr__(self) -> str:
        videos = self._videos
        rules = self.rules
        end = "an epoch" if rules.training else "in all"
        return (
            f"Orbit({self.split}, {self.protocol}, {rules.mode}, {rules.centre}-centric, seed "
            f"{self.seed}: {len(videos.users)} users, {len(videos.classes)} objects, "
            f"{len(videos.starts) - 1:,} videos, {self.tasks:,} tasks {end}; "
            f"{len(videos.dropped)} left out)"
        )

    def __getitem__(self, number: int, /) -> EpisodePlan:
        rng = generator(self.seed, number)
        user = self._user(number)
        rules = self.rules
        query_rng = generator(self.seed, user, ORBIT_QUERY_DRAW) if rules.shared_query else rng
        objects = self._objects(query_rng, user)
        support = self._side(rng, objects, SUPPORT)
        query = self._side(query_rng, objects, QUERY)
        return EpisodePlan(
            number=int(number),
            dataset=self.dataset.manifest.name,
            classes=tuple(self._videos.classes[objects].tolist()),
            support=support,
            query=query,
            clip=rules.clip_length,
            query_clips="sliding" if rules.sliding else "blocks",
        )

    def user_of(self, number: int) -> str:
        """The user whose objects a task has; "" where it has everyone's."""
        return self.users[self._user(number)] if self.rules.centre == "user" else ""

    def video_of(self, rows: Ints) -> Ints:
        """The video of each row, as a code into `dataset.index.words["group"]`."""
        return np.asarray(self.dataset.index["group"][rows], np.int64)

    def _user(self, number: int) -> int:
        """Position in `users`."""
        if not self.rules.training:
            if not 0 <= number < self.tasks:
                raise IndexError(f"{self.split} has tasks 0 to {self.tasks - 1}, got {number}")
            return number // self.rules.tasks_per_user
        epoch, place = divmod(number, self.tasks)
        order = generator(self.seed, epoch, ORBIT_ORDER_DRAW).permutation(self.tasks)
        return int(order[place]) // self.rules.tasks_per_user

    def _objects(self, rng: np.random.Generator, user: int) -> Ints:
        """A task's objects, ascending."""
        videos, rules = self._videos, self.rules
        of_user = rules.centre == "user"
        objects = videos.objects[user] if of_user else np.arange(len(videos.classes))
        most = min(len(objects), rules.most_objects() or len(objects))
        way = int(rng.integers(LEAST_WAY, most + 1)) if rules.way == "random" else most
        return np.sort(rng.choice(objects, way, replace=False))

    def _side(self, rng: np.random.Generator, objects: Ints, number: int) -> Side:
        """Videos of each object, clips of each video: mixed, or the query's of a test by video."""
        videos, rules = self._videos, self.rules
        draw = (rules.support, rules.query)[number]
        first, there = videos.of(objects, number)
        counts = np.minimum(there, rules.most_videos(("support", "query")[number], len(objects)))
        if draw.videos == "random":
            counts = rng.integers(1, counts + 1)
        label, place = subsets(rng, there, counts)
        chosen = first[label] + place
        frames = np.diff(videos.starts)[chosen]
        if number == QUERY and rules.sliding:
            which, offsets = whole_videos(frames, rules)
        else:
            which, offsets = draw_clips(rng, frames, draw, rules)
        if number == QUERY and not rules.training:
            order = np.lexsort([offsets[:, 0], chosen[which]])
        else:
            order = rng.permutation(len(which))
        which, offsets = which[order], offsets[order]
        rows = videos.rows[videos.starts[chosen[which]][:, None] + offsets]
        return Side(rows.ravel(), np.repeat(label[which], offsets.shape[1]))
