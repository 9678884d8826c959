"""A task's queries: iterated in chunks, checked against what the task declares, counted, and looked at without a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from learners.labels import per_clip
from learners.lite.stages import SupportStages
from learners.lite.transfers import HostTransfers
from learners.task import Task, split_images
from pipeline.errors import UsageError


def chunk_sizes(units: int, size: int, *, join_single: bool = False) -> list[int]:
    """The units of each chunk; with `join_single` a last chunk of one joins the chunk before."""
    sizes = [min(size, units - begin) for begin in range(0, units, size)]
    if join_single and size > 1 and len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [size + 1]
    return sizes


def query_chunks(
    task: Task, units: int, tally: QueryTally, *, join_single: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the queries with one usable label per unit, so many units of a batch at a time, once they are there."""
    for images, labels in task.queries:
        if not len(images) == len(labels) > 0:
            raise UsageError(
                f"a batch of queries is images with a label each, got {len(images)} and {len(labels)}"
            )
        answers = tally.usable(per_clip(labels, task.clip))
        sizes = chunk_sizes(len(answers), units, join_single=join_single)
        chunks = split_images(images, [size * task.clip for size in sizes])
        yield from zip(chunks, torch.split(answers, sizes), strict=True)


class QueryTally:
    """Sums of losses and correct answers over a task's queries, on the device, until `finish` fetches them."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self._wanted = task.query_count // task.clip
        self._way = task.way
        self._loss = torch.zeros((), device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._wrong = torch.zeros((), dtype=torch.int64, device=device)
        self.seen = 0
        self.transfers = HostTransfers()

    def usable(self, answers: Tensor) -> Tensor:
        """Clamp labels into range, since labels out of range would kill a GPU process; `finish` reports them."""
        answers = answers.to(self._loss.device)
        usable = answers.clamp(0, self._way - 1)
        self._wrong += (usable != answers).sum()
        self.seen += len(answers)
        return usable

    def add(self, loss: Tensor, correct: Tensor) -> None:
        self._loss = self._loss + loss
        self._correct += correct

    def finish(self) -> tuple[Tensor, Tensor]:
        """Mean loss and number correct, on the host; raises UsageError unless the queries were as declared.

        One transfer brings all that is wanted from the device: the host waits once.
        """
        if self.seen != self._wanted:
            raise UsageError(
                f"the task was said to have {self._wanted} queries and handed over {self.seen}; its loss is "
                "divided by the first number, so `query_count` must be right before they are seen"
            )
        loss = self._loss / self.seen
        counts = [value.double() for value in (loss, self._correct, self._wrong)]
        found = self.transfers.fetch(torch.stack(counts))
        if wrong := int(found[2]):
            raise UsageError(
                f"query labels are 0 to {self._way - 1}, the classes of the support set; {wrong} of {self.seen} "
                "are not"
            )
        return found[0].to(loss.dtype), found[1].long()


def look_at_queries(
    support: SupportStages, chunks: Iterable[tuple[Tensor, Tensor]], tally: QueryTally, share: float
) -> tuple[Tensor, Tensor] | None:
    """All queries' images and the gradient at their features; None if nothing before the head learns."""
    images, gradients = [], []
    for batch, answers in chunks:
        loss, correct, gradient = support.look(batch, answers, share)
        tally.add(loss, correct)
        if gradient is not None:
            images.append(batch.clone())  # a loader may read the next batch into the same memory
            gradients.append(gradient)
    return (torch.cat(images), torch.cat(gradients)) if gradients else None
