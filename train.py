"""Meta-train a learner: `python train.py --shards shards/md --h 40`, and `--help`.

A step is `tasks_per_step` episodes: the loader streams each one, the learner computes the gradient of its loss,
and the optimiser applies the mean. Everything random depends on the seed and the episode's number, so an
interrupted run resumes bit for bit.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from learners import checkpoint
from learners.learner import MetaLearner
from learners.lite.engine import Outcome
from learners.methods.catalogue import WITH_TEMPERATURE, LearnerInfo
from learners.processes import ProcessGroup, join_processes
from learners.runs import BEST_CHECKPOINT, LAST_CHECKPOINT, read_checkpoint
from learners.task import Task
from learners.training.components import (
    describe_run_learner,
    initial_learner,
    lite_settings,
    make_optimizer,
    make_sampler,
    open_loader,
)
from learners.training.config import TrainingConfig, parse
from learners.training.journal import RunJournal, draw_curve, memory_mb
from learners.training.temperature import describe_temperature, fit_temperature
from learners.training.validate import better, validate
from pipeline.command import run_command
from pipeline.episodes import LITE_DRAW, TURN_DRAW, Sampler, generator
from pipeline.errors import IntegrityError, RunInterrupted, UsageError
from pipeline.loader.episode import Episode, EpisodeImages
from pipeline.pixels import draw_flips, flip, rotate_quarters
from pipeline.process import note_stop_signals
from pipeline.shardset import ShardSet

VALIDATION_SEED: Final = 1 << 32  # added to the seed, so that validation draws other episodes than training


def main(argv: Sequence[str] | None = None) -> int:
    """Train, validate, save, and draw the curve."""
    config, resume = parse(argv)
    with join_processes(config.device) as processes, note_stop_signals() as stop:
        run = TrainingRun.open(config, processes, resume=resume)
        with RunJournal(config.folder, quiet=not processes.leads, done=run.tasks) as journal:
            run.train(journal, stop)
        if processes.leads and (curve := draw_curve(config.folder)):
            sys.stdout.write(f"wrote {curve}\n")
    return 0


@dataclass(slots=True)
class TrainingRun:
    """A training run: its learner, optimiser and data, and how far it is."""

    config: TrainingConfig
    processes: ProcessGroup
    shards: ShardSet
    sampler: Sampler
    learner: MetaLearner
    info: LearnerInfo
    optimizer: torch.optim.Optimizer
    tasks: int = 0
    """Episodes that the weights have seen."""
    best: dict[str, float] = field(default_factory=dict)
    """Validation accuracies of the best weights."""
    validated: int = 0
    """Episodes at the last validation."""

    @classmethod
    def open(cls, config: TrainingConfig, processes: ProcessGroup, *, resume: bool) -> TrainingRun:
        """Start a run in its folder, or resume one from its last checkpoint."""
        if config.tasks_per_step % processes.size:
            raise UsageError(
                f"--tasks-per-step {config.tasks_per_step} cannot be shared by {processes.size} processes"
            )
        shards = ShardSet.open(config.shards)
        sampler = make_sampler(shards, config, "train", config.seed, config.datasets)
        learner = initial_learner(config, processes.device)
        run = cls(
            config, processes, shards, sampler, learner, describe_run_learner(learner, config, shards),
            make_optimizer(config, learner),
        )  # fmt: skip
        if resume:
            run.load(config.folder / LAST_CHECKPOINT)
            return run
        if (config.folder / LAST_CHECKPOINT).exists():
            raise UsageError(
                f"{config.folder} holds a run already; --resume {config.folder} goes on with it, --out "
                "begins another"
            )
        if config.fit_temperature:
            fit_temperature(learner, shards, config, processes)
        if processes.leads:
            config.folder.mkdir(parents=True, exist_ok=True)
            config.save(config.folder)
        return run

    def train(self, journal: RunJournal, stop: list[int]) -> None:
        """Train step by step, to the end or until a signal asks to stop."""
        config, processes = self.config, self.processes
        learning = sum(p.numel() for p in self.learner.parameters() if p.requires_grad)
        journal.say(f"{config.folder}: {learning:,} parameters learn, {self.sampler!r}")
        if config.learner in WITH_TEMPERATURE:
            journal.say(describe_temperature(self.learner, config))
        if self.tasks:
            journal.say(f"resumed at episode {self.tasks:,}")
            self.validate_if_due(journal)
        with open_loader(self.shards, self.sampler, config, processes, start=self.tasks) as loader:
            episodes = iter(loader)
            while self.tasks < config.tasks:
                begin, before = time.perf_counter(), loader.stats
                loss, accuracy = self.step(episodes)
                spent, used = time.perf_counter() - begin, loader.stats - before
                values = {
                    "loss": loss, "accuracy": accuracy, "seconds": spent,
                    "episodes_per_second": config.tasks_per_step / spent,
                    "images_per_second": used.images * processes.size / spent,
                    "waiting": used.waiting / spent, "memory_mb": memory_mb(processes.device),
                }  # fmt: skip
                journal.write("step", self.tasks, values)
                journal.say(_line(self.tasks, config.tasks, values))
                self.pause(journal, stopped=processes.any(bool(stop)))

    def step(self, episodes: Iterator[Episode]) -> tuple[float, float]:
        """Train on the next episodes; return their mean loss and accuracy."""
        config = self.config
        parameters = [p for p in self.learner.parameters() if p.requires_grad]
        sums = [torch.zeros_like(p) for p in parameters]
        scores = []
        for episode in islice(episodes, config.tasks_per_step // self.processes.size):
            outcome = self.gradient(episode)
            if not bool(torch.isfinite(outcome.loss)):
                raise IntegrityError(
                    f"the loss of episode {episode.number} is {float(outcome.loss)}: training diverged. "
                    f"{config.folder / LAST_CHECKPOINT} holds the last good weights; try a lower --lr"
                )
            scores.append([float(outcome.loss), int(outcome.correct) / outcome.queries])
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            if config.ordered:
                self.processes.add_in_order(gradients, sums)
            else:
                for total, gradient in zip(sums, gradients, strict=True):
                    total.add_(gradient)
            self.optimizer.zero_grad()
        if not config.ordered:
            self.processes.add(sums)
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.grad = total / config.tasks_per_step
        self.set_rates()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.tasks += config.tasks_per_step
        means = self.processes.gather(torch.tensor(scores, dtype=torch.float64).flatten()).view(-1, 2).mean(0)
        return float(means[0]), float(means[1])

    def gradient(self, episode: Episode) -> Outcome:
        """Add the gradient of an episode's loss to the parameters' `.grad`."""
        config = self.config
        turns = _turns(config, episode)
        task = Task(
            images=self.augmented(episode, episode.support, turns),
            labels=episode.support.labels,
            way=episode.way,
            queries=[(self.augmented(episode, episode.query, turns), episode.query.labels)],
            query_count=len(episode.query),
            clip=episode.plan.clip,
        )
        rng = generator(config.seed, episode.number, LITE_DRAW)
        return self.learner.gradient(task, lite_settings(config), rng)

    def augmented(self, episode: Episode, part: EpisodeImages, turns: Tensor | None) -> Tensor:
        """The images of support or query set, after augmentation."""
        images = part.images
        if turns is not None:
            images = rotate_quarters(images, turns.to(images.device)[part.labels])
        if self.config.flip:
            seed = self.config.seed
            coins = draw_flips(seed, episode.number, part.positions, query=part is episode.query)
            images = flip(images, coins)
        return images

    def set_rates(self) -> None:
        """Set the learning rates for the current episode: halved every `lr_halve_every` episodes."""
        every = self.config.lr_halve_every
        times = self.tasks // every if every else 0
        for group in self.optimizer.param_groups:
            group.setdefault("first_lr", group["lr"])
            group["lr"] = group["first_lr"] / 2**times

    def pause(self, journal: RunJournal, *, stopped: bool) -> None:
        """Save and validate where it is time; stop if a signal came."""
        config, last = self.config, self.tasks >= self.config.tasks
        if last or stopped or self.due(config.save_every) or self.due(config.validate_every):
            self.save(config.folder / LAST_CHECKPOINT)  # validation may take long: nothing is lost meanwhile
        if stopped and not last:
            raise RunInterrupted(
                f"stopped after {self.tasks:,} of {config.tasks:,} episodes, and saved; "
                f"python train.py --resume {config.folder} goes on"
            )
        self.validate_if_due(journal)

    def due(self, every: int) -> bool:
        """Whether the last step passed a multiple of `every`."""
        return bool(every) and self.tasks % every < self.config.tasks_per_step

    def validate_if_due(self, journal: RunJournal) -> None:
        """Validate where it is time; a run stopped before a validation resumes with it."""
        if self.tasks < self.config.tasks and not self.due(self.config.validate_every):
            return
        if self.shards.with_split("validation") and self.validated < self.tasks:
            self.validate(journal)

    def validate(self, journal: RunJournal) -> None:
        """Score the weights on the validation datasets; keep them if they are the best so far."""
        begin = time.perf_counter()
        seed = self.config.seed + VALIDATION_SEED
        scores = validate(
            self.learner, self.shards, self.config, self.processes, split="validation", seed=seed
        )
        mean = math.fsum(score.accuracy for score in scores.values()) / len(scores)
        improved = better(scores, self.best)
        if improved:
            self.best = {name: score.accuracy for name, score in scores.items()}
            self.save(self.config.folder / BEST_CHECKPOINT)
        self.validated = self.tasks
        self.save(self.config.folder / LAST_CHECKPOINT)
        values = {name: score.accuracy for name, score in scores.items()}
        journal.write("validation", self.tasks, {"accuracy": mean, "best": improved, "datasets": values})
        shown = ", ".join(f"{name} {score}" for name, score in scores.items())
        spent = time.perf_counter() - begin
        journal.say(f"validation {mean:.1%}{' (best)' if improved else ''}: {shown}, {spent:.0f} s")

    def save(self, path: Path) -> None:
        """Write a checkpoint, completely or not at all."""
        if not self.processes.leads:
            return
        state = {"learner": self.learner.state_dict(), "optimizer": self.optimizer.state_dict()}
        tensors, values = checkpoint.flatten(state)
        values = {"about": self.info.described(), "state": values, "tasks": self.tasks, "best": self.best,
                  "validated": self.validated}  # fmt: skip
        checkpoint.save(path, tensors, values)

    def load(self, path: Path) -> None:
        """Restore the state of a checkpoint."""
        state, _, trees = read_checkpoint(path)
        checkpoint.load_module(self.learner, trees["learner"], path)
        checkpoint.load_optimizer(self.optimizer, trees.get("optimizer"), path)
        self.tasks, self.best, self.validated = state.tasks, dict(state.best), state.validated


def _turns(config: TrainingConfig, episode: Episode) -> Tensor | None:
    """The quarter turns of each class of an episode, with --rotate."""
    if not config.rotate:
        return None
    draw = generator(config.seed, episode.number, TURN_DRAW).integers(0, 4, episode.way)
    return torch.from_numpy(draw)


def _line(tasks: int, total: int, values: dict[str, float]) -> str:
    return (
        f"{tasks:>7,}/{total:,}  loss {values['loss']:.3f}  accuracy {values['accuracy']:6.1%}  "
        f"{values['episodes_per_second']:.2f} episodes/s  {values['images_per_second']:,.0f} images/s  "
        f"waiting for data {values['waiting']:.0%}  {values['memory_mb']:,.0f} MB"
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
