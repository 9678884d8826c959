"""Who is evaluated: a run's learner, or one with a backbone's weights and no training."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import nn

from learners import runs as trained
from learners.evaluate.overlap import overlap
from learners.evaluate.work import Part
from learners.methods.catalogue import About, about, make
from pipeline.errors import PipelineError, UsageError, few
from pipeline.records import Resizing
from pipeline.shardset import ShardSet

SIZE: Final = 224  # pixels, without a run that says


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Subject:
    """A learner, and what a table says of it."""

    net: nn.Module
    about: About
    name: str
    tasks: int = 0
    """Episodes that it was trained on."""
    weights: str = ""
    """Of the backbone of one that was not trained on any."""
    file: Path | None = None
    """Its checkpoint."""

    def described(self) -> dict[str, Any]:
        """Plain values, for JSON; of a run also how its gradients were taken."""
        values = {**self.about.described(), "tasks": self.tasks}
        if self.file is None:
            return {**values, "weights": self.weights}
        try:
            settings = trained.read_settings(self.file.parent)
        except PipelineError:  # `notes` says why
            return values
        return {**values, "h": settings["h"], "sampler": settings["sampler"]}

    def notes(self, parts: Sequence[Part], shards: ShardSet, image_size: int) -> tuple[str, ...]:
        """What a reader of its figures must know."""
        found = []
        if self.file is None:
            found.append(f"not trained on tasks; backbone's weights: {self.weights or 'random'}")
        elif image_size != self.about.image_size:
            found.append(f"evaluated at {image_size} px, trained at {self.about.image_size} px")
        if self.file is not None:
            found += self._resized(sorted({part.dataset for part in parts}), shards)
            found += overlap(self.file, parts, shards)
        return tuple(found)

    def _resized(self, names: Sequence[str], shards: ShardSet) -> Iterator[str]:
        """Where pictures became squares in another way than those that it was trained on."""
        own = self.about.resizing
        others: dict[Resizing, list[str]] = {}
        for name in names:
            others.setdefault(shards[name].manifest.recipe.resizing, []).append(name)
        for how, having in others.items():
            if how != own:
                yield f"pictures of {few(having)}: {how}; those it was trained on: {own}"


def subject(arguments: Namespace) -> Subject:
    """Whom the flags name."""
    own = {flag: getattr(arguments, flag) for flag in ("learner", "backbone", "weights")}
    given = [f"--{flag}" for flag, value in own.items() if value]
    if arguments.checkpoint:
        if given:
            raise UsageError(f"--checkpoint says what {given[0]} says; leave one of them out")
        return _of_run(arguments)
    if not (arguments.learner and arguments.backbone):
        raise UsageError("whom to evaluate: a --checkpoint, or a --learner and its --backbone")
    net = make(
        arguments.learner, arguments.backbone, weights=arguments.weights, seed=arguments.seed or 0
    )
    return Subject(
        net=net, about=about(net, arguments.learner, arguments.image_size or SIZE),
        name=arguments.name or f"{arguments.learner}-{arguments.backbone}",
        weights=Path(arguments.weights or "").name,
    )  # fmt: skip


def _of_run(arguments: Namespace) -> Subject:
    found = trained.load(arguments.checkpoint)
    in_run = found.file.name in (trained.BEST, trained.LAST)
    name = found.file.resolve().parent.name if in_run else found.file.stem
    return Subject(
        net=found.net, about=found.about, name=arguments.name or name, tasks=found.tasks,
        file=found.file,
    )  # fmt: skip
