"""The learner that is evaluated: that of a run, or an untrained one with a backbone's weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from learners.evaluate.flags import EvaluationFlags
from learners.evaluate.overlap import training_overlap
from learners.evaluate.run import EvaluationSettings
from learners.evaluate.task_set import TaskSet
from learners.learner import MetaLearner
from learners.methods.catalogue import LearnerInfo, describe_learner, make_learner
from learners.networks.backbones import PRETRAINED, RANDOM
from learners.networks.pretraining import pretraining_data
from learners.runs import BEST_CHECKPOINT, LAST_CHECKPOINT, describe_preset, load_run, read_run_settings
from learners.task import ChunkedPass
from pipeline.errors import PipelineError, UsageError, first_few
from pipeline.records import ResizeMethod
from pipeline.settings import flag_name
from pipeline.shardset import ShardSet

DEFAULT_IMAGE_SIZE: Final = 224  # pixels, for an untrained learner


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EvaluatedLearner:
    """A learner, and what tables say of it."""

    net: MetaLearner
    info: LearnerInfo
    name: str
    tasks: int = 0
    """The number of episodes that it was trained on."""
    weights: str = ""
    """The file of the backbone's weights, for an untrained learner."""
    checkpoint: Path | None = None
    """None for an untrained learner."""

    def described(self) -> dict[str, Any]:
        """Plain values, for JSON; for a run also how its gradients were taken."""
        values = {**self.info.described(), "tasks": self.tasks}
        if self.checkpoint is None:
            return {
                **values,
                "weights": self.weights,
                "pretraining": pretraining_data(self.info.backbone, self.weights),
            }
        try:
            settings = read_run_settings(self.checkpoint.parent)
        except PipelineError:  # `notes` says why
            return values
        values |= {"h": settings.h, "sampler": settings.sampler, "weights": settings.weights or RANDOM}
        values["pretraining"] = pretraining_data(self.info.backbone, settings.weights)
        return {**values, "preset": settings.preset, "overridden": list(settings.overridden)}

    def notes(self, task_set: TaskSet, shards: ShardSet, settings: EvaluationSettings) -> tuple[str, ...]:
        """What a reader of its figures must know."""
        image_size = settings.image_size
        names = sorted({own.dataset for own in task_set.datasets})
        limits = (*self._chunk_notes(task_set, settings.passage), *limit_notes(names, shards))
        if self.checkpoint is None:
            return (f"not trained on tasks; backbone's weights: {self.weights or RANDOM}", *limits)
        notes = [*_run_notes(self.checkpoint)]
        if image_size != self.info.image_size:
            notes.append(f"evaluated at {image_size} px, trained at {self.info.image_size} px")
        notes += self._resize_notes(names, shards)
        notes += training_overlap(self.checkpoint, task_set.datasets, shards)
        return (*notes, *limits)

    def _chunk_notes(self, task_set: TaskSet, passage: ChunkedPass) -> Iterator[str]:
        """Notes where figures depend on the chunks that the support set passes in."""
        units = replace(passage, clip=task_set.datasets[0].clip)
        size = f"{units.units} {'images' if units.clip == 1 else f'clips of {units.clip} frames'}"
        if self.info.options.inner_weighting == "paper":
            yield f"each inner step adds up the mean losses of chunks of {size} (--chunk)"
        if self.info.options.encoder_norm == "batch" and self.net.encoder is not None:
            yield f"the set encoder's norms have the statistics of chunks of {size} (--chunk)"

    def _resize_notes(self, names: Sequence[str], shards: ShardSet) -> Iterator[str]:
        """Notes on datasets whose images were resized in another way than those of its training."""
        datasets: dict[ResizeMethod, list[str]] = {}
        for name in names:
            datasets.setdefault(shards[name].manifest.recipe.resizing, []).append(name)
        own = self.info.resizing
        for method, resized in datasets.items():
            if method != own:
                yield f"pictures of {first_few(resized)}: {method}; those it was trained on: {own}"


def _run_notes(checkpoint: Path) -> Iterator[str]:
    """Notes on the settings that a learner was trained with."""
    try:
        settings = read_run_settings(checkpoint.parent)
    except PipelineError:  # the note on overlap says why
        return
    if settings.preset:
        yield f"trained with {describe_preset(settings.preset, settings.overridden)}"
    if settings.frozen_random:
        yield "its backbone is frozen and began with RANDOM weights: its features mean nothing"


def limit_notes(names: Sequence[str], shards: ShardSet) -> Iterator[str]:
    """Notes on datasets of which the build left images out, by a limit per class."""
    limited: dict[int, list[str]] = {}
    for name in names:
        if (limit := shards[name].class_limit) is not None:
            limited.setdefault(limit, []).append(name)
    for limit, own in limited.items():
        hold = "holds" if len(own) == 1 else "hold"
        yield (
            f"{first_few(own)} {hold} at most {limit:,} images of a class (--limit-per-class), the benchmark uses all"
        )


def load_evaluated(flags: EvaluationFlags, seed: int) -> EvaluatedLearner:
    """The learner that the flags name: a run's, or an untrained one whose first weights the seed decides."""
    own = {"learner": flags.learner, "backbone": flags.backbone, "weights": flags.weights}
    given = [f"--{name}" for name, value in own.items() if value]
    if flags.checkpoint:
        given += [flag_name(name) for name in sorted(flags.changed())]
        if given:
            raise UsageError(f"--checkpoint says what {given[0]} says; leave one of them out")
        return _load_trained(flags.checkpoint, flags.name)
    if not (flags.learner and flags.backbone):
        raise UsageError("whom to evaluate: a --checkpoint, or a --learner and its --backbone")
    weights = flags.weights or PRETRAINED
    net = make_learner(flags.learner, flags.backbone, weights=weights, seed=seed, options=flags.options)
    return EvaluatedLearner(
        net=net, info=describe_learner(
            net, flags.learner, flags.image_size or DEFAULT_IMAGE_SIZE, options=flags.options
        ),
        name=flags.name or f"{flags.learner}-{flags.backbone}", weights=Path(weights).name,
    )  # fmt: skip


def _load_trained(checkpoint: str, name: str) -> EvaluatedLearner:
    run = load_run(checkpoint)
    in_run = run.file.name in (BEST_CHECKPOINT, LAST_CHECKPOINT)
    usual = run.file.resolve().parent.name if in_run else run.file.stem
    return EvaluatedLearner(
        net=run.net, info=run.info, name=name or usual, tasks=run.tasks, checkpoint=run.file
    )
