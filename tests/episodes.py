"""Samplers, and digests of what a loader delivers, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from pipeline.episodes import EpisodePlan, Side, generator
from pipeline.loader.episode import Chunk, Episode
from pipeline.loader.loader import EpisodeLoader


@dataclass(frozen=True)
class RowSampler:
    """A user's own sampler: random rows of a dataset, with random labels of two classes."""

    dataset: str
    rows: int
    support: int = 20
    query: int = 12
    episodes: int = 2**40
    seed: int = 7
    clip: int = 1
    requested: list[int] = field(default_factory=list)

    def __getitem__(self, number: int) -> EpisodePlan:
        if number >= self.episodes:
            raise IndexError(number)
        self.requested.append(number)
        random = generator(self.seed, number)
        rows = random.integers(0, self.rows, self.support + self.query)
        labels = random.integers(0, 2, self.support + self.query)
        return EpisodePlan(
            number=number,
            dataset=self.dataset,
            classes=(0, 1),
            support=Side(rows[: self.support], labels[: self.support]),
            query=Side(rows[self.support :], labels[self.support :]),
            clip=self.clip,
        )

    def __len__(self) -> int:
        return self.episodes


@dataclass(frozen=True)
class PlanSampler:
    """A sampler of given plans."""

    plans: Sequence[EpisodePlan]
    seed: int = 0

    def __getitem__(self, number: int) -> EpisodePlan:
        return self.plans[number]


def plan_of_rows(dataset: str, support: Sequence[int], query: Sequence[int]) -> EpisodePlan:
    """An episode of one class with these rows."""
    sides = (Side(np.array(rows, np.int64), np.zeros(len(rows), np.int64)) for rows in (support, query))
    first, second = sides
    return EpisodePlan(number=0, dataset=dataset, classes=(0,), support=first, query=second)


def episode_chunks(episode: Episode) -> Iterator[tuple[str, Chunk]]:
    """An episode's chunks in order, H included if there is one."""
    if len(episode.support.h):
        yield "h", episode.support.h
    yield from (("rest", chunk) for chunk in episode.support.rest)
    yield from (("query", chunk) for chunk in episode.query)


def chunk_digest(episode: Episode, role: str, chunk: Chunk) -> str:
    """The digest of a chunk and its episode."""
    digest = hashlib.sha256(f"{episode.number} {episode.plan.digest} {role}".encode())
    for tensor in (chunk.images, chunk.labels, chunk.positions, chunk.valid):
        digest.update(str(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def stream_digests(loader: EpisodeLoader, episodes: int) -> list[tuple[int, str]]:
    """Number and digest of every chunk of the next episodes."""
    digests = []
    for episode in islice(loader, episodes):
        digests += [
            (episode.number, chunk_digest(episode, role, chunk)) for role, chunk in episode_chunks(episode)
        ]
    return digests
