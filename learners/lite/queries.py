"""A task's queries: a chunk at a time, each once; whether they were what was said, and what they came to."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from learners.labels import per_clip
from learners.learner import Passage, Task
from pipeline.errors import UsageError


def batches(task: Task, passage: Passage) -> Iterator[tuple[Tensor, Tensor]]:
    """The queries with one label per unit, a chunk at most at a time."""
    for images, labels in task.queries:
        if not len(images) == len(labels) > 0:
            raise UsageError(
                f"a batch of queries is images with a label each, got {len(images)} and {len(labels)}"
            )
        chunks = torch.split(images, passage.units * task.clip)
        yield from zip(chunks, torch.split(per_clip(labels, task.clip), passage.units), strict=True)


class Tally:
    """Losses and answers of a task's queries, added up on the device; checked once, at the end."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self._wanted = task.query_count // task.clip
        self._way = task.way
        self.loss = torch.zeros((), device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self._wrong = torch.zeros((), dtype=torch.int64, device=device)
        self.seen = 0

    def usable(self, answers: Tensor) -> Tensor:
        """Labels that a loss can be had for; on a GPU others would end the process."""
        return answers.to(self.loss.device).clamp(0, self._way - 1)

    def add(self, answers: Tensor, loss: Tensor, correct: Tensor) -> None:
        self.loss = self.loss + loss
        self.correct += correct
        self._wrong += ((answers < 0) | (answers >= self._way)).sum().to(self.loss.device)
        self.seen += len(answers)

    def check(self) -> None:
        """Whether the queries were what the task said."""
        if self.seen != self._wanted:
            raise UsageError(
                f"the task was said to have {self._wanted} queries and handed over {self.seen}; its loss is "
                "divided by the first number, so `query_count` must be right before they are seen"
            )
        if int(self._wrong):
            raise UsageError(
                f"query labels are 0 to {self._way - 1}, the classes of the support set; {int(self._wrong)} "
                f"of {self.seen} are not"
            )
