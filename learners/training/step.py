"""One step of the optimiser: the gradients of some episodes, summed over all processes, and applied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from learners.learner import MetaLearner
from learners.lite.engine import Outcome
from learners.processes import ProcessGroup
from learners.training.components import lite_settings, scale_rates
from learners.training.config import TrainingConfig
from learners.training.tasks import training_task
from pipeline.episodes import LITE_DRAW, generator
from pipeline.loader.episode import Episode


class StepScores(NamedTuple):
    """Means over the episodes of a step, of all processes."""

    loss: float
    accuracy: float
    chance: float
    """The accuracy of guessing."""

    @property
    def finite(self) -> bool:
        """Whether they are numbers; the loss of a learner that diverged is not."""
        return bool(torch.tensor(self).isfinite().all())


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """What a step works with. `gather` computes its gradient, `apply` changes the weights by it."""

    config: TrainingConfig
    processes: ProcessGroup
    learner: MetaLearner
    optimizer: torch.optim.Optimizer

    def gather(self, episodes: Iterable[Episode]) -> tuple[StepScores, Sequence[Tensor]]:
        """The scores of this process's episodes and of the others', and the sum of all gradients."""
        parameters = self._learning()
        sums = [torch.zeros_like(p) for p in parameters]
        scores = []
        for episode in episodes:
            outcome = self.gradient(episode)
            scores.append([float(outcome.loss), int(outcome.correct) / outcome.queries, 1 / episode.way])
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            if self.config.ordered:
                self.processes.add_in_order(gradients, sums)
            else:
                for total, gradient in zip(sums, gradients, strict=True):
                    total.add_(gradient)
            self.optimizer.zero_grad()
        if not self.config.ordered:
            self.processes.add(sums)
        means = self.processes.gather(torch.tensor(scores, dtype=torch.float64).flatten()).view(-1, 3).mean(0)
        return StepScores(*means.tolist()), sums

    def apply(self, sums: Sequence[Tensor], tasks: int) -> None:
        """Let the optimiser apply a sum of gradients to weights that have seen so many tasks."""
        for parameter, total in zip(self._learning(), sums, strict=True):
            parameter.grad = total / self.config.tasks_per_step  # a short step counts less, as in the papers'
        scale_rates(self.optimizer, self.config.rate_factor(tasks))
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradient(self, episode: Episode) -> Outcome:
        """Add the gradient of an episode's loss to the parameters' `.grad`."""
        rng = generator(self.config.seed, episode.number, LITE_DRAW)
        return self.learner.gradient(training_task(episode, self.config), lite_settings(self.config), rng)

    def _learning(self) -> list[torch.nn.Parameter]:
        return [p for p in self.learner.parameters() if p.requires_grad]
