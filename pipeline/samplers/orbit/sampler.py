"""ORBIT's tasks: clips of a user's objects, learned from clean videos and recognised in others.

Massiceti et al., ORBIT, ICCV 2021 (arXiv:2104.03841); its published protocols are in `orbit/rules.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.episodes import ORBIT_ORDER_DRAW, ORBIT_QUERY_DRAW, EpisodePlan, Side, generator, philox
from pipeline.samplers.orbit.clips import Ints, draw_clips, draw_subsets, whole_videos
from pipeline.samplers.orbit.rules import LEAST_WAY, ProtocolName, protocol_rules
from pipeline.samplers.orbit.videos import QUERY_SIDE, SUPPORT_SIDE, OrbitExclusion, list_videos
from pipeline.shardset import ShardSet


class Orbit:
    """ORBIT's episodes by number.

    Training has epochs without end, each with `tasks_per_user` tasks of each user, shuffled. Validation
    and test have `len(sampler)` tasks, in order of user.

    Further keywords change the protocol: the fields of `rules.OrbitRules`, and those of `SideRules` as
    `support_...` and `query_...`, such as `mode="cle-ve", tasks_per_user=10, support_clip_count=4`.
    Label i is the i-th of the task's objects by name. A row may repeat, as padding. The video of a row is
    `dataset.index["group"][row]`.
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
        self.rules = protocol_rules(protocol, split, changes)
        self.dataset = shards[dataset]
        self._videos = list_videos(self.dataset, split, self.rules)

    @property
    def users(self) -> tuple[str, ...]:
        """The users that tasks are drawn of, in order."""
        return self._videos.users

    @property
    def dropped(self) -> tuple[OrbitExclusion, ...]:
        """The videos, objects and users that the rules leave out, and why."""
        return self._videos.dropped

    @property
    def tasks(self) -> int:
        """The number of tasks: in training of an epoch, otherwise in all."""
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
        support = self._side(rng, objects, SUPPORT_SIDE)
        query = self._side(query_rng, objects, QUERY_SIDE)
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
        """The user whose objects a task has; "" if it has objects of several."""
        return self.users[self._user(number)] if self.rules.centre == "user" else ""

    def video_of(self, rows: Ints) -> Ints:
        """The video of each row, as a code into `dataset.index.words["group"]`."""
        return np.asarray(self.dataset.index["group"][rows], np.int64)

    def _user(self, number: int) -> int:
        """The user of a task, as a position in `users`."""
        if not self.rules.training:
            if not 0 <= number < self.tasks:
                raise IndexError(f"{self.split} has tasks 0 to {self.tasks - 1}, got {number}")
            return number // self.rules.tasks_per_user
        epoch, position = divmod(number, self.tasks)
        order = generator(self.seed, epoch, ORBIT_ORDER_DRAW).permutation(self.tasks)
        return int(order[position]) // self.rules.tasks_per_user

    def _objects(self, rng: np.random.Generator, user: int) -> Ints:
        """Draw a task's objects, ascending."""
        videos, rules = self._videos, self.rules
        of_user = rules.centre == "user"
        objects = videos.objects[user] if of_user else np.arange(len(videos.classes))
        most = min(len(objects), rules.most_objects() or len(objects))
        way = int(rng.integers(LEAST_WAY, most + 1)) if rules.way == "random" else most
        return np.sort(rng.choice(objects, way, replace=False))

    def _side(self, rng: np.random.Generator, objects: Ints, number: int) -> Side:
        """Draw videos of each object and clips of each video; shuffled, but a test's query is by video."""
        videos, rules = self._videos, self.rules
        draw = (rules.support, rules.query)[number]
        first, total = videos.of(objects, number)
        counts = np.minimum(total, rules.most_videos(("support", "query")[number], len(objects)))
        if draw.videos == "random":
            counts = rng.integers(1, counts + 1)
        label, video = draw_subsets(rng, total, counts)
        chosen = first[label] + video
        frames = np.diff(videos.starts)[chosen]
        if number == QUERY_SIDE and rules.sliding:
            which, offsets = whole_videos(frames, rules)
        else:
            which, offsets = draw_clips(rng, frames, draw, rules)
        if number == QUERY_SIDE and not rules.training:
            order = np.lexsort([offsets[:, 0], chosen[which]])
        else:
            order = rng.permutation(len(which))
        which, offsets = which[order], offsets[order]
        rows = videos.rows[videos.starts[chosen[which]][:, None] + offsets]
        return Side(rows.ravel(), np.repeat(label[which], offsets.shape[1]))
