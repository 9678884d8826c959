"""What a run says: before its first step what learns, by which settings, and what is wrong with them; then each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from learners.evaluate.overlap import training_on_tests
from learners.learner import MetaLearner
from learners.methods.catalogue import WITH_TEMPERATURE
from learners.networks.chunk_sizes import ChunkSizes
from learners.runs import describe_preset
from learners.training.chance import ChanceWatch
from learners.training.config import TrainingConfig
from learners.training.journal import RunJournal
from learners.training.preset_choice import data_warnings
from learners.training.step import StepScores
from learners.training.temperature import describe_temperature
from pipeline.episodes import Sampler
from pipeline.shardset import ShardSet

NO_WAIT: Final = 0.02  # of a step: the host's waits for the GPU, where it has nothing left to do by then
WAITS_FOR_DATA: Final = 0.1  # of a step, from which on the loader is to blame first
STARVED_STEPS: Final = 5  # in a row
STARVED: Final = "the GPU waits for Python: raise --chunk, or --compile"
STARVED_BY_SMALL_TASKS: Final = (
    "the GPU waits for Python: try --compile; a larger --chunk cannot help, episodes pass at once"
)
FROZEN_RANDOM: Final = "warning: THE BACKBONE IS FROZEN AND ITS WEIGHTS ARE RANDOM; its features mean nothing"


def opening_lines(
    config: TrainingConfig, learner: MetaLearner, shards: ShardSet, sampler: Sampler, processes: int
) -> Iterator[str]:
    """The first lines of a run's log."""
    learning = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    yield f"{config.folder}: {learning:,} parameters learn, {sampler!r}"
    if config.chunks != ChunkSizes():
        yield str(config.chunks)
    if config.preset:
        yield describe_preset(config.preset, config.overridden)
        yield from data_warnings(shards, config.preset, config.preset_datasets)
    if tested := training_on_tests(shards, config.datasets, orbit=bool(config.orbit)):
        yield f"warning: {tested}"
    if config.frozen_random:
        yield FROZEN_RANDOM
    if config.learner in WITH_TEMPERATURE:
        yield describe_temperature(learner, config)
    if processes > 1:  # a process that waits for a lost one cannot say this then
        yield f"{processes} processes: if one is lost all end, and the same torchrun with --resume {config.folder} goes on"


def step_line(tasks: int, total: int, values: Mapping[str, float]) -> str:
    """The line of a step, after so many of the run's episodes; on a GPU it says how busy that was."""
    gpu = memory = ""
    if "gpu_wait" in values:
        gpu = f"  stalled {values['stalled']:.0%}  gpu wait {values['gpu_wait']:.0%}"
        memory = f" ({values['memory_reserved_mb']:,.0f} reserved)"
    if "gpu_utilisation" in values:
        gpu += f"  gpu busy {values['gpu_utilisation']:.0%}"
    return (
        f"{tasks:>7,}/{total:,}  loss {values['loss']:.3f}  accuracy {values['accuracy']:6.1%}  "
        f"{values['episodes_per_second']:.2f} episodes/s  {values['images_per_second']:,.0f} images/s  "
        f"waiting for data {values['waiting']:.0%}{gpu}  {values['memory_mb']:,.0f} MB{memory}"
    )


@dataclass(slots=True)
class StarvationWatch:
    """Notices, once, that the GPU has done its work whenever the host asks for results: Python is too slow for it."""

    steps: int = 0
    """Such steps in a row."""
    judged: bool = False

    def verdict(self, values: Mapping[str, float]) -> str:
        """Count a step by its record; a warning after several in a row that starved the GPU, else ""."""
        if self.judged or "gpu_wait" not in values or "profiled" in values:
            return ""
        fed = max(values["waiting"], values["stalled"]) < WAITS_FOR_DATA
        self.steps = self.steps + 1 if fed and values["gpu_wait"] < NO_WAIT else 0
        self.judged = self.steps >= STARVED_STEPS
        if not self.judged:
            return ""
        images = values["images_per_second"] / values["episodes_per_second"]
        return (
            STARVED if 2 * values["chunk"] < images else STARVED_BY_SMALL_TASKS
        )  # support and queries apart


class StepReports:
    """Writes the record of each step and prints its line, with a warning where something is wrong."""

    def __init__(self, journal: RunJournal, config: TrainingConfig, *, resumed: bool) -> None:
        self._journal = journal
        self._total = config.tasks
        self._chances = ChanceWatch(frozen_random=config.frozen_random, judged=resumed)
        self._starvation = StarvationWatch()

    def add(
        self, tasks: int, episodes: int, scores: StepScores, values: Mapping[str, float], warning: str
    ) -> None:
        """Report a step of so many episodes, after which the run has seen `tasks`; `warning`: one more, or ""."""
        self._journal.write("step", tasks, values)
        self._journal.say(step_line(tasks, self._total, values))
        at_chance = self._chances.verdict(episodes, scores.accuracy, scores.chance)
        for text in filter(None, (at_chance, self._starvation.verdict(values), warning)):
            self._journal.say(text)
