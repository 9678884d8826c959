"""One step of the optimiser: the gradients of some episodes, summed over all processes, and applied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from learners.learner import MetaLearner
from learners.lite.engine import Outcome
from learners.networks.chunk_sizes import ChunkSizes, halving
from learners.processes import ProcessGroup
from learners.training.chunks import are_fixed
from learners.training.components import lite_settings, scale_rates
from learners.training.config import TrainingConfig
from learners.training.loss_scale import LossScale
from learners.training.tasks import training_task
from pipeline.episodes import LITE_DRAW, generator
from pipeline.loader.episode import Episode


class StepScores(NamedTuple):
    """Means over the episodes of a step, of all processes."""

    loss: float
    accuracy: float
    chance: float
    """The accuracy of guessing."""
    waited: float
    """Seconds of an episode in which the host waited for the device."""

    @property
    def finite(self) -> bool:
        """Whether they are numbers; the loss of a learner that diverged is not."""
        return bool(torch.tensor(self).isfinite().all())


@dataclass(slots=True)
class TrainingStep:
    """What a step works with. `gather` computes its gradient, `apply` changes the weights by it."""

    config: TrainingConfig
    """Its chunks are smaller after an episode that did not fit in memory otherwise."""
    processes: ProcessGroup
    learner: MetaLearner
    optimizer: torch.optim.Optimizer
    loss_scale: LossScale

    def gather(self, episodes: Iterable[Episode]) -> tuple[StepScores, Sequence[Tensor]]:
        """The scores of this process's episodes and of the others', and the sum of all gradients times the loss scale."""
        parameters = self._learning()
        sums = [torch.empty_like(p) for p in parameters]
        torch._foreach_zero_(sums)
        scores = []
        for episode in episodes:
            outcome = self.gradient(episode)
            accuracy = int(outcome.correct) / outcome.queries
            scores.append(StepScores(float(outcome.loss), accuracy, 1 / episode.way, outcome.waited))
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            if self.config.ordered:
                self.processes.add_in_order(gradients, sums)
            else:
                torch._foreach_add_(sums, gradients)
            self.optimizer.zero_grad()
        if not self.config.ordered:
            self.processes.add(sums)
        gathered = self.processes.gather(torch.tensor(scores, dtype=torch.float64).flatten())
        return StepScores(*gathered.view(-1, len(StepScores._fields)).mean(0).tolist()), sums

    def apply(self, sums: Sequence[Tensor], tasks: int) -> None:
        """Let the optimiser apply a sum of gradients to weights that have seen so many tasks; the sum is used up."""
        # A short step counts less, as in the papers'.
        torch._foreach_div_(list(sums), self.config.tasks_per_step)
        for parameter, mean in zip(self._learning(), sums, strict=True):
            parameter.grad = mean
        scale_rates(self.optimizer, self.config.rate_factor(tasks))
        self.loss_scale.step(self.optimizer)
        self.optimizer.zero_grad()

    def gradient(self, episode: Episode) -> Outcome:
        """Add the gradient of an episode's loss, times the loss scale, to the parameters' `.grad`."""

        def compute(sizes: ChunkSizes) -> Outcome:
            self.optimizer.zero_grad()  # what a try that ran out of memory left
            config = self.config.with_chunks(sizes)
            task, settings = training_task(episode, config), lite_settings(config)
            rng = generator(config.seed, episode.number, LITE_DRAW)
            return self.learner.gradient(task, settings, rng, scale=self.loss_scale.value)

        fixed = are_fixed(self.config, self.learner)
        outcome, sizes = halving(compute, self.config.chunks, fixed=fixed)
        self.config = self.config.with_chunks(sizes)
        return outcome

    def _learning(self) -> list[torch.nn.Parameter]:
        return [p for p in self.learner.parameters() if p.requires_grad]
