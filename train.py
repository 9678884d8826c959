"""Meta-train a learner: `python train.py --shards shards/md --h 40`, and `--help`.

Each step is `tasks_per_step` episodes. The loader streams an episode; the engine of `learners.lite` (or
MAML's) takes the gradient of its loss; the mean over the step's episodes moves the weights. Everything
random depends on the seed and an episode's number, so a run that is interrupted goes on bit for bit.
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
from torch import Tensor, nn

from learners import checkpoint
from learners.learner import Task
from learners.lite.engine import Outcome, backward
from learners.methods.catalogue import About
from learners.methods.maml import MAML
from learners.methods.protonets import ProtoNets
from learners.processes import Team, team
from learners.runs import BEST, LAST
from learners.training.components import (
    describe,
    lite,
    make_learner,
    make_optimizer,
    make_sampler,
    open_loader,
    precision,
)
from learners.training.config import Config, parse
from learners.training.journal import Journal, draw_curve, memory_mb
from learners.training.temperature import fit_temperature, said
from learners.training.validate import better, validate
from pipeline.command import run_command
from pipeline.episodes import LITE_DRAW, TURN_DRAW, Sampler, generator
from pipeline.errors import IntegrityError, Interrupted, UsageError
from pipeline.loader.episode import Delivery, Episode
from pipeline.pixels import chosen_to_flip, flip, turned
from pipeline.process import stopping
from pipeline.shardset import ShardSet

VALIDATION_SEED: Final = 1 << 32  # validation's episodes are none of training's


def main(argv: Sequence[str] | None = None) -> int:
    """Train, validate, save, draw the curve."""
    config, resume = parse(argv)
    with team(config.device) as members, stopping() as stop:
        run = Run.open(config, members, resume=resume)
        with Journal(config.folder, quiet=not members.leads, done=run.tasks) as journal:
            run.train(journal, stop)
        if members.leads and (curve := draw_curve(config.folder)):
            sys.stdout.write(f"wrote {curve}\n")
    return 0


@dataclass(slots=True)
class Run:
    """A run: what learns, how far it is, and where its files are."""

    config: Config
    team: Team
    shards: ShardSet
    sampler: Sampler
    learner: nn.Module
    about: About
    optimizer: torch.optim.Optimizer
    tasks: int = 0
    """Episodes that the weights have seen."""
    best: dict[str, float] = field(default_factory=dict)
    """Validation accuracies of the best weights."""
    validated: int = 0
    """Episodes at the last validation."""

    @classmethod
    def open(cls, config: Config, members: Team, *, resume: bool) -> Run:
        """A new run in its folder, or one that goes on from its last checkpoint."""
        if config.tasks_per_step % members.size:
            raise UsageError(
                f"--tasks-per-step {config.tasks_per_step} cannot be shared by {members.size} processes"
            )
        shards = ShardSet.open(config.shards)
        sampler = make_sampler(shards, config, "train", config.seed, config.datasets)
        learner = make_learner(config, members.device)
        run = cls(
            config, members, shards, sampler, learner, describe(learner, config, shards),
            make_optimizer(config, learner),
        )  # fmt: skip
        if resume:
            run.load(config.folder / LAST)
            return run
        if (config.folder / LAST).exists():
            raise UsageError(
                f"{config.folder} holds a run already; --resume {config.folder} goes on with it, --out "
                "begins another"
            )
        if isinstance(learner, ProtoNets) and config.fit_temperature:
            fit_temperature(learner, shards, config, members)
        if members.leads:
            config.folder.mkdir(parents=True, exist_ok=True)
            config.save(config.folder)
        return run

    def train(self, journal: Journal, stop: list[int]) -> None:
        """Step by step to the end, or until a signal asks to stop."""
        config, members = self.config, self.team
        learning = sum(p.numel() for p in self.learner.parameters() if p.requires_grad)
        journal.say(f"{config.folder}: {learning:,} parameters learn, {self.sampler!r}")
        if isinstance(self.learner, ProtoNets):
            journal.say(said(self.learner, config))
        if self.tasks:
            journal.say(f"resumed at episode {self.tasks:,}")
            self.validate_if_due(journal)
        with open_loader(self.shards, self.sampler, config, members, start=self.tasks) as loader:
            episodes = iter(loader)
            while self.tasks < config.tasks:
                begin, before = time.perf_counter(), loader.stats
                loss, accuracy = self.step(episodes)
                spent, used = time.perf_counter() - begin, loader.stats - before
                values = {
                    "loss": loss, "accuracy": accuracy, "seconds": spent,
                    "episodes_per_second": config.tasks_per_step / spent,
                    "images_per_second": used.images * members.size / spent,
                    "waiting": used.waiting / spent, "memory_mb": memory_mb(members.device),
                }  # fmt: skip
                journal.write("step", self.tasks, values)
                journal.say(_line(self.tasks, config.tasks, values))
                self.pause(journal, stopped=members.any(bool(stop)))

    def step(self, episodes: Iterator[Episode]) -> tuple[float, float]:
        """Mean loss and accuracy over the step's episodes, which have moved the weights."""
        config = self.config
        parameters = [p for p in self.learner.parameters() if p.requires_grad]
        sums = [torch.zeros_like(p) for p in parameters]
        told = []
        for episode in islice(episodes, config.tasks_per_step // self.team.size):
            outcome = self.gradient(episode)
            if not bool(torch.isfinite(outcome.loss)):
                raise IntegrityError(
                    f"the loss of episode {episode.number} is {float(outcome.loss)}: training diverged. "
                    f"{config.folder / LAST} holds the last good weights; try a lower --lr"
                )
            told.append([float(outcome.loss), int(outcome.correct) / outcome.queries])
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            if config.ordered:
                self.team.add_in_order(gradients, sums)
            else:
                for total, gradient in zip(sums, gradients, strict=True):
                    total.add_(gradient)
            self.optimizer.zero_grad()
        if not config.ordered:
            self.team.add(sums)
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.grad = total / config.tasks_per_step
        self.set_rates()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.tasks += config.tasks_per_step
        means = (
            self.team.gather(torch.tensor(told, dtype=torch.float64).flatten()).view(-1, 2).mean(0)
        )
        return float(means[0]), float(means[1])

    def gradient(self, episode: Episode) -> Outcome:
        """Leave the gradient of an episode's loss on the learner's parameters."""
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
        if isinstance(self.learner, MAML):
            return self.learner.backward(task, chunk=config.chunk, precision=precision(config))
        rng = generator(config.seed, episode.number, LITE_DRAW)
        return backward(self.learner, task, lite(config), rng)  # type: ignore[arg-type]

    def augmented(self, episode: Episode, part: Delivery, turns: Tensor | None) -> Tensor:
        """The images of one side as the learner sees them."""
        images = part.images
        if turns is not None:
            images = turned(images, turns.to(images.device)[part.labels])
        if self.config.flip:
            seed = self.config.seed
            coins = chosen_to_flip(
                seed, episode.number, part.positions, query=part is episode.query
            )
            images = flip(images, coins)
        return images

    def set_rates(self) -> None:
        """Halve the learning rates as often as it is time to."""
        every = self.config.lr_halve_every
        times = self.tasks // every if every else 0
        for group in self.optimizer.param_groups:
            group.setdefault("first_lr", group["lr"])
            group["lr"] = group["first_lr"] / 2**times

    def pause(self, journal: Journal, *, stopped: bool) -> None:
        """Between two steps: save and validate where it is time; stop if a signal came."""
        config, last = self.config, self.tasks >= self.config.tasks
        if last or stopped or self.due(config.save_every) or self.due(config.validate_every):
            self.save(config.folder / LAST)  # validation may take long: nothing is lost meanwhile
        if stopped and not last:
            raise Interrupted(
                f"stopped after {self.tasks:,} of {config.tasks:,} episodes, and saved; "
                f"python train.py --resume {config.folder} goes on"
            )
        self.validate_if_due(journal)

    def due(self, every: int) -> bool:
        """Whether the step that just ended went past a multiple of `every`."""
        return bool(every) and self.tasks % every < self.config.tasks_per_step

    def validate_if_due(self, journal: Journal) -> None:
        """A run that was stopped before a validation resumes with it."""
        if self.tasks < self.config.tasks and not self.due(self.config.validate_every):
            return
        if self.shards.with_split("validation") and self.validated < self.tasks:
            self.validate(journal)

    def validate(self, journal: Journal) -> None:
        """Score the weights on the validation datasets; keep them if they are the best so far."""
        begin = time.perf_counter()
        seed = self.config.seed + VALIDATION_SEED
        scores = validate(
            self.learner, self.shards, self.config, self.team, split="validation", seed=seed
        )
        mean = math.fsum(score.accuracy for score in scores.values()) / len(scores)
        improved = better(scores, self.best)
        if improved:
            self.best = {name: score.accuracy for name, score in scores.items()}
            self.save(self.config.folder / BEST)
        self.validated = self.tasks
        self.save(self.config.folder / LAST)
        values = {name: score.accuracy for name, score in scores.items()}
        journal.write(
            "validation", self.tasks, {"accuracy": mean, "best": improved, "datasets": values}
        )
        shown = ", ".join(f"{name} {score}" for name, score in scores.items())
        spent = time.perf_counter() - begin
        journal.say(f"validation {mean:.1%}{' (best)' if improved else ''}: {shown}, {spent:.0f} s")

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        if not self.team.leads:
            return
        state = {"learner": self.learner.state_dict(), "optimizer": self.optimizer.state_dict()}
        tensors, values = checkpoint.flatten(state)
        values = {"about": self.about.described(), "state": values, "tasks": self.tasks, "best": self.best,
                  "validated": self.validated}  # fmt: skip
        checkpoint.save(path, tensors, values)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        tensors, values = checkpoint.load(path)
        state = checkpoint.unflatten(tensors, values["state"])
        checkpoint.load_module(self.learner, state["learner"], path)
        checkpoint.load_optimizer(self.optimizer, state["optimizer"], path)
        self.tasks, self.best = values["tasks"], values["best"]
        self.validated = values["validated"]


def _turns(config: Config, episode: Episode) -> Tensor | None:
    """The quarter turns of each class of an episode, if classes are turned."""
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
