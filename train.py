"""Meta-train a learner: `python train.py --shards shards/md --h 40`, and `--help`.

A step is `tasks_per_step` episodes: the loader streams each one, the learner computes the gradient of its loss,
and the optimiser applies the mean. Everything random depends on the seed and the episode's number, so an
interrupted run resumes bit for bit; on a GPU with `--deterministic`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import torch

from learners import checkpoint
from learners.learner import MetaLearner
from learners.methods.catalogue import LearnerInfo
from learners.networks.arithmetic import network_arithmetic
from learners.networks.chunk_sizes import ChunkSizes
from learners.processes import ProcessGroup, ProcessLost, join_processes, out_of_memory_in_words
from learners.runs import (
    BEST_CHECKPOINT,
    LAST_CHECKPOINT,
    DataIdentity,
    RunState,
    last_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from learners.training.announce import StepReports, opening_lines
from learners.training.chunks import choose_chunks
from learners.training.components import (
    describe_run_learner,
    initial_learner,
    make_optimizer,
    make_sampler,
    open_loader,
)
from learners.training.config import TrainingConfig
from learners.training.divergence import answers_finite, diverged
from learners.training.flags import parse
from learners.training.journal import RunJournal, draw_curve
from learners.training.loss_scale import LossScale
from learners.training.preset_choice import check_preset_data
from learners.training.same_data import check_same_data, identify_data
from learners.training.step import StepScores, TrainingStep
from learners.training.step_meter import StepMeter
from learners.training.step_profile import StepProfiler
from learners.training.temperature import fit_temperature
from learners.training.validate import better, validate, validation_names
from pipeline.command import run_command
from pipeline.episodes import Sampler
from pipeline.errors import RunInterrupted, UsageError
from pipeline.loader.episode import Episode
from pipeline.process import note_stop_signals
from pipeline.shardset import ShardSet

VALIDATION_SEED: Final = 1 << 32  # added to the seed, so that validation draws other episodes than training


def main(argv: Sequence[str] | None = None) -> int:
    """Train, validate, save, and draw the curve."""
    config, resume = parse(argv)
    with (
        join_processes(config.device) as processes,
        note_stop_signals() as stop,
        network_arithmetic(config.precision, processes.device, deterministic=config.deterministic),
        out_of_memory_in_words(),
    ):
        run = TrainingRun.open(config, processes, resume=resume)
        with processes.hold(config.folder):
            run.begin(resume=resume)
            quiet = not processes.leads
            with RunJournal(config.folder, quiet=quiet, done=run.tasks, validated=run.validated) as journal:
                try:
                    run.train(journal, stop)
                except ProcessLost as error:
                    raise ProcessLost(f"{error}: {run.way_on()}") from error
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
    data: dict[str, DataIdentity]
    """The datasets that it trains and validates on."""
    loss_scale: LossScale
    tasks: int = 0
    """Episodes that the weights have seen."""
    best: dict[str, float] = field(default_factory=dict)
    """Validation accuracies of the best weights."""
    validated: int = 0
    """Episodes at the last validation."""
    saved: int = 0
    """Episodes at the last save."""
    latest: Episode | None = None
    """The last episode of this process, for which weights must give finite answers before they are saved."""

    @classmethod
    def open(cls, config: TrainingConfig, processes: ProcessGroup, *, resume: bool) -> TrainingRun:
        """Open the data and make the learner, of a new run or of one that goes on; `begin` comes next."""
        config.check_processes(processes.size)
        shards = ShardSet.open(config.shards)
        if config.preset:
            check_preset_data(shards, config.preset, config.preset_datasets)
        sampler = make_sampler(shards, config, "train", config.seed, config.datasets)
        data = identify_data(shards, config)
        stored = read_checkpoint(last_checkpoint(config.folder))[1] if resume else None
        learner = initial_learner(config, processes.device, stored=stored)
        return cls(
            config, processes, shards, sampler, learner, describe_run_learner(learner, config, shards),
            make_optimizer(config, learner), data, LossScale(config.precision, processes.device),
        )  # fmt: skip

    def begin(self, *, resume: bool) -> None:
        """Begin in the run's folder, or go on from its last checkpoint."""
        config, path = self.config, self.config.folder / LAST_CHECKPOINT
        if resume:
            self.load(path)
            return
        if path.exists():
            raise UsageError(
                f"{config.folder} holds a run already; --resume {config.folder} goes on with it, --out "
                "begins another"
            )
        self.config = config.with_chunks(choose_chunks(config, self.learner, self.processes))
        if config.fit_temperature:
            fit_temperature(self.learner, self.shards, self.config, self.processes)
        if self.processes.leads:
            config.save(config.folder)

    def train(self, journal: RunJournal, stop: list[int]) -> None:
        """Train step by step, to the end or until a signal asks to stop."""
        config, processes = self.config, self.processes
        for line in opening_lines(config, self.learner, self.shards, self.sampler, processes.size):
            journal.say(line)
        reports = StepReports(journal, config, resumed=bool(self.tasks))
        profiled = config.profile if processes.leads else None
        if self.tasks:
            journal.say(f"resumed at episode {self.tasks:,}")
            self.validate_if_due(journal)
        with (
            open_loader(self.shards, self.sampler, config, processes, start=self.tasks) as loader,
            StepMeter(config, self.learner, loader, processes) as meter,
            StepProfiler(config.folder, profiled, processes.device, journal.say) as profiler,
        ):
            episodes = iter(loader)
            while self.tasks < config.tasks:
                meter.begin()
                done = self.tasks
                scores = self.step(episodes)
                done = self.tasks - done
                values = meter.read(scores, done) | self.loss_scale.record() | profiler.mark
                values |= {"chunk": self.config.chunks.graph, "forward_chunk": self.config.chunks.forward}
                reports.add(self.tasks, done, scores, values, self.loss_scale.verdict())
                profiler.step()
                self.pause(journal, self.tasks - done, stopped=processes.any(bool(stop)))

    def step(self, episodes: Iterator[Episode]) -> StepScores:
        """Train on the next episodes; return their mean loss, accuracy, and accuracy of guessing."""
        count = self.config.step_size(self.tasks)
        step = TrainingStep(self.config, self.processes, self.learner, self.optimizer, self.loss_scale)
        scores, gradient = step.gather(self.noting(islice(episodes, count // self.processes.size)))
        self.config = step.config.with_chunks(ChunkSizes(*self.processes.least(step.config.chunks)))
        if not scores.finite:
            numbers = f"{self.tasks:,} to {self.tasks + count - 1:,}"
            raise diverged(f"the loss of episodes {numbers} is {scores.loss}", self.saved)
        step.apply(gradient, self.tasks)
        if self.loss_scale.exhausted:
            raise diverged(f"the gradient from episode {self.tasks:,} on overflows float16", self.saved)
        self.tasks += count
        return scores

    def noting(self, episodes: Iterable[Episode]) -> Iterator[Episode]:
        """The same episodes; the last one is kept, to see whether the weights answer it."""
        for episode in episodes:
            yield episode
            self.latest = episode

    def pause(self, journal: RunJournal, since: int, *, stopped: bool) -> None:
        """Save and validate where it is time, after a step that began at `since`; stop if a signal came."""
        config, last = self.config, self.tasks >= self.config.tasks
        if last or stopped or self.due(config.save_every, since) or self.due(config.validate_every, since):
            self.check_answers()
            self.save(config.folder / LAST_CHECKPOINT)  # validation may take long: nothing is lost meanwhile
        if stopped and not last:
            raise RunInterrupted(
                f"stopped after {self.tasks:,} of {config.tasks:,} episodes, and saved; "
                f"python train.py --resume {config.folder} goes on"
            )
        self.validate_if_due(journal)

    def check_answers(self) -> None:
        """Refuse to save weights that any process's last episode gets no finite answers from."""
        fine = self.latest is None or answers_finite(self.learner, self.latest, self.config)
        if self.processes.any(not fine):
            raise diverged(f"after episode {self.tasks - 1:,} the answers are not finite", self.saved)

    def due(self, every: int, since: int) -> bool:
        """Whether the episodes after `since` passed a multiple of `every`."""
        return bool(every) and self.tasks // every > since // every

    def validate_if_due(self, journal: RunJournal) -> None:
        """Validate where it is time; a run stopped before a validation resumes with it."""
        config, before = self.config, max(self.validated, self.config.validate_from - 1)
        wanted = (
            config.validate_at_end if self.tasks >= config.tasks else self.due(config.validate_every, before)
        )
        if wanted and self.validated < self.tasks and validation_names(self.shards, config, "validation"):
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
        values = {name: score.accuracy for name, score in scores.items()}
        journal.write("validation", self.tasks, {"accuracy": mean, "best": improved, "datasets": values})
        self.validated = self.tasks
        self.save(self.config.folder / LAST_CHECKPOINT)  # after the record: a kill in between validates again
        shown = ", ".join(f"{name} {score}" for name, score in scores.items())
        spent = time.perf_counter() - begin
        journal.say(f"validation {mean:.1%}{' (best)' if improved else ''}: {shown}, {spent:.0f} s")

    def save(self, path: Path) -> None:
        """Write a checkpoint, completely or not at all."""
        self.saved = self.tasks
        if not self.processes.leads:
            return
        state = RunState(
            about=self.info.described(),
            tasks=self.tasks,
            best=self.best,
            validated=self.validated,
            data=self.data,
            chunks=self.config.chunks,
        )
        trees = {"learner": self.learner.state_dict(), "optimizer": self.optimizer.state_dict()}
        if scale := self.loss_scale.state():
            trees["loss_scale"] = scale
        write_checkpoint(path, state, trees)

    def way_on(self) -> str:
        """Tell how a run that was stopped goes on."""
        if not self.saved:
            return "nothing was saved yet, so by the same command"
        return f"--resume {self.config.folder} goes on from the last save"

    def load(self, path: Path) -> None:
        """Restore the state of a checkpoint."""
        state, _, trees = read_checkpoint(path)
        checkpoint.load_module(self.learner, trees["learner"], path)
        checkpoint.load_optimizer(self.optimizer, trees.get("optimizer"), path)
        self.loss_scale.restore(trees.get("loss_scale"), path)
        check_same_data(state.data, self.data, self.shards.root)
        self.tasks, self.best, self.validated = state.tasks, dict(state.best), state.validated
        sizes = state.chunks or choose_chunks(self.config, self.learner, self.processes)
        self.config = self.config.with_chunks(ChunkSizes(*sizes))
        self.saved = self.tasks
        self.config.check_profile(self.tasks)


if __name__ == "__main__":
    sys.exit(run_command(main))
