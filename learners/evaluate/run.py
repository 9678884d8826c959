"""An evaluation under way: which tasks are left, this process's share of them, and their answers.

A task's number decides which process answers it, and nothing but the task decides its answers: the same
come out of any number of processes, and of any that went on where others stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from learners.evaluate.answers import adapt, answer, ask, record
from learners.evaluate.features import Blocks, Table, shared
from learners.evaluate.ledger import Ledger, agree
from learners.evaluate.records import TaskAnswers
from learners.evaluate.work import Key, Part, Work
from learners.learner import Passage, StagedLearner
from learners.processes import Team
from pipeline.command import Progress
from pipeline.decoders.choose import DecoderName
from pipeline.episodes import EpisodePlan, Sampler
from pipeline.loader.loader import EpisodeLoader
from pipeline.shardset import ShardSet


@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """What an evaluation's figures should not depend on, but for rounding."""

    image_size: int
    passage: Passage
    decoder: DecoderName = "auto"
    threads: int | None = None
    share: bool = True
    """Pass an image once where several tasks show it and its features are the same in all."""


@dataclass(frozen=True, slots=True)
class Some:
    """A sampler of some numbers of another."""

    sampler: Sampler
    numbers: Sequence[int]
    seed: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int, /) -> EpisodePlan:
        return self.sampler[self.numbers[place]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Run:
    """A learner, its tasks, and who works on them."""

    net: nn.Module
    work: Work
    shards: ShardSet
    how: How
    team: Team

    def answers(self, folder: Path, settings: Mapping[str, Any]) -> list[TaskAnswers]:
        """Answer what is left, and return all tasks in order; nothing to processes that do not lead."""
        agree(folder, settings, leads=self.team.leads)
        self.team.any(False)  # noqa: FBT003 - everybody has read the folder before anybody writes
        wanted = [key for part in self.work.parts for key in part.keys]
        mine = wanted[self.team.rank :: self.team.size]
        with Ledger(folder, self.team.rank) as ledger:
            done = ledger.tasks().keys()
            left = [task for task in mine if task not in done]
            quiet = not self.team.leads
            with Progress("evaluate", len(left), quiet=quiet, unit="task") as progress:
                for task in self._each(left):
                    ledger.add(task)
                    progress.advance(1, task.dataset)
            if not self.team.leads:
                return []
            found = ledger.wait(set(wanted))
        return [found[task] for task in wanted]

    def _each(self, left: Sequence[Key]) -> Iterator[TaskAnswers]:
        warm = False
        for part in self.work.parts:
            own = [key.number for key in left if key[:2] == (part.dataset, part.mode)]
            if not own:
                continue
            net, dataset, blocks = self.net, self.shards[part.dataset], None
            if self.how.share and isinstance(net, StagedLearner):
                blocks = shared(net, part, own, dataset, self.how.passage)
                if blocks is not None:
                    yield from self._shared(net, part, own, blocks)
            if blocks is None:
                yield from self._streamed(part, own, warm=warm)
                warm = True

    def _streamed(self, part: Part, numbers: Sequence[int], *, warm: bool) -> Iterator[TaskAnswers]:
        """Tasks whose images pass one task after the other."""
        dataset, passage = self.shards[part.dataset], self.how.passage
        with self._loader(part, Some(part.sampler, numbers)) as loader:
            for episode in loader:
                if not warm:  # what is done for the first time takes longer
                    clips = replace(passage, clip=episode.plan.clip)
                    adapt(self.net, episode.support.images, episode.support.labels, clips)
                    warm = True
                yield answer(self.net, episode, part, dataset, passage)

    def _shared(
        self, net: StagedLearner, part: Part, numbers: Sequence[int], blocks: Blocks
    ) -> Iterator[TaskAnswers]:
        """Tasks of images that have passed before."""
        dataset = self.shards[part.dataset]
        with self._loader(part, blocks) as loader:
            table = Table(net, blocks, loader, self.how.passage)
        for number in numbers:
            plan = part.sampler[number]
            classify, seconds = table.adapt(plan)
            answers = ask(classify, plan, dataset, table.asked(plan))
            yield record(part, dataset, plan, answers, seconds)

    def _loader(self, part: Part, sampler: Sampler) -> EpisodeLoader:
        how = self.how
        return EpisodeLoader(
            replace(self.shards, datasets={part.dataset: self.shards[part.dataset]}), sampler,
            image_size=how.image_size, h=0, device=self.team.device, decoder=how.decoder,
            threads=how.threads,
        )  # fmt: skip


def digest(net: nn.Module) -> str:
    """A hash of all weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        found.update(name.encode())
        found.update(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return found.hexdigest()
