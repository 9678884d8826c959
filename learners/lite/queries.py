"""A task's queries: iterated in chunks, checked against what the task declares, counted, and looked at without a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from learners.labels import per_clip
from learners.lite.stages import SupportStages
from learners.task import ChunkedPass, Task
from pipeline.errors import UsageError


def chunk_sizes(units: int, size: int, *, join_single: bool = False) -> list[int]:
    """The units of each chunk; with `join_single` a last chunk of one joins the chunk before."""
    sizes = [min(size, units - begin) for begin in range(0, units, size)]
    if join_single and size > 1 and len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [size + 1]
    return sizes


def query_chunks(
    task: Task, passage: ChunkedPass, *, join_single: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the queries with one label per unit, a chunk of each batch at a time."""
    for images, labels in task.queries:
        if not len(images) == len(labels) > 0:
            raise UsageError(
                f"a batch of queries is images with a label each, got {len(images)} and {len(labels)}"
            )
        answers = per_clip(labels, task.clip)
        sizes = chunk_sizes(len(answers), passage.units, join_single=join_single)
        chunks = torch.split(images, [size * task.clip for size in sizes])
        yield from zip(chunks, torch.split(answers, sizes), strict=True)


class QueryTally:
    """Sums of losses and correct answers over a task's queries, on the device; checked once, at the end."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self._wanted = task.query_count // task.clip
        self._way = task.way
        self.loss = torch.zeros((), device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self._wrong = torch.zeros((), dtype=torch.int64, device=device)
        self.seen = 0

    def usable(self, answers: Tensor) -> Tensor:
        """Clamp labels into range, since labels out of range would kill a GPU process; `check` reports them."""
        return answers.to(self.loss.device).clamp(0, self._way - 1)

    def add(self, answers: Tensor, loss: Tensor, correct: Tensor) -> None:
        self.loss = self.loss + loss
        self.correct += correct
        self._wrong += ((answers < 0) | (answers >= self._way)).sum().to(self.loss.device)
        self.seen += len(answers)

    def check(self) -> None:
        """Raise UsageError unless the queries were what the task declared."""
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


def look_at_queries(
    support: SupportStages, chunks: Iterable[tuple[Tensor, Tensor]], tally: QueryTally, share: float
) -> tuple[Tensor, Tensor] | None:
    """All queries' images and the gradient at their features; None if nothing before the head learns."""
    images, gradients = [], []
    for batch, answers in chunks:
        loss, correct, gradient = support.look(batch, tally.usable(answers), share)
        tally.add(answers, loss, correct)
        if gradient is not None:
            images.append(batch.clone())  # a loader may read the next batch into the same memory
            gradients.append(gradient)
    return (torch.cat(images), torch.cat(gradients)) if gradients else None
