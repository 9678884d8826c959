"""The runs of the LITE paper's studies in their small form: what is trained, and compared with what."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from learners.methods.catalogue import LEARNERS
from pipeline.errors import UsageError, check_choice
from pipeline.settings import check_choices, setting

LITE0_WEIGHTS: Final = "weights/tf_efficientnet_lite0.safetensors"
STUDIED_LEARNERS: Final = ("protonets", "protonets_cosine", "cnaps", "simple_cnaps")
USUAL_SAMPLER: Final = "neyman"
USUAL_H: Final = 40  # support images with gradient, in the paper
SMALL_TASK_FACTOR: Final = 1.5  # the paper's 15,000 small tasks for 10,000 large ones


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallForm:
    """What the runs of the small form have in common."""

    learners: tuple[str, ...] = setting(("protonets", "simple_cnaps"), "which are studied", metavar="NAME")
    shards: str = setting("", "shard set with training and validation classes (Omniglot and Caltech-101)")
    backbone: str = setting("tf_efficientnet_lite0", "of timm, or conv4")
    weights: str = setting("", f"the backbone's: a file, or 'random' ({LITE0_WEIGHTS} of REAL_DATA)")
    image_size: int = setting(84, "pixels; a size that the shards hold")
    way: int = setting(20, "classes of a task")
    shot: int = setting(6, "support images of a class")
    query: int = setting(2, "query images of a class")
    small_shot: int = setting(2, "support images of a class in small tasks")
    h: tuple[int, ...] = setting(
        (0, 1, 10, 20, 30, 40, 100), "numbers of support images with gradient, besides all"
    )
    sampler: Literal["neyman", "stratified", "uniform", "paper-lite"] = setting(
        USUAL_SAMPLER, "how H is drawn"
    )
    tasks: int = setting(60, "to train on")
    tasks_per_step: int = setting(2, "of a step")
    questions: int = setting(50, "tasks of each dataset to evaluate on")
    gradient_tasks: int = setting(4, "tasks on which figure4 measures gradients")
    seeds: tuple[int, ...] = setting((0,), "of tasks, H and first weights; accuracies are means over them")

    def __post_init__(self) -> None:
        check_choices(self)
        for learner in self.learners:
            check_choice(learner, STUDIED_LEARNERS, "--learners")
        if self.small_shot >= self.shot or max(self.h) >= self.way * self.shot:
            raise UsageError(
                f"a task has {self.way * self.shot} support images: --small-shot {self.small_shot} should be below "
                f"--shot {self.shot}, and --h {max(self.h)} below {self.way * self.shot}, which is 'all'"
            )

    @property
    def support(self) -> int:
        """Support images of a task."""
        return self.way * self.shot


class StudyRun(NamedTuple):
    """A row of a study: how a learner is trained, and which other row it is compared with."""

    learner: str
    label: str
    name: str
    """Of its folder."""
    against: str
    """The name of the run that it is compared with."""
    changes: Mapping[str, Any] | None = None
    """Settings of train.py that are its own; None for a learner that is not trained."""
    h: int | None = None
    """The |H| of the published row beside it."""


def sweep(form: SmallForm, learner: str) -> Iterator[StudyRun]:
    """Table 2: not trained, each |H|, and the full gradient, which all are compared with."""
    every = f"{learner}-all"
    yield StudyRun(learner, "not trained", f"{learner}-untrained", every)
    for h in form.h:
        if h or not LEARNERS[learner].frozen:  # without support gradients a set encoder learns nothing
            yield lite_run(form, learner, h, every)
    yield StudyRun(learner, f"all {form.support}", every, every, {"sampler": "exact"})


def small_tasks(form: SmallForm, learner: str) -> Iterator[StudyRun]:
    """Section D.3: tasks with few support images and all gradients; as many tasks, and more by half."""
    lite = lite_run(form, learner, min(USUAL_H, max(form.h)))
    yield lite._replace(against=lite.name)
    more = math.ceil(SMALL_TASK_FACTOR * form.tasks)
    for count in (form.tasks, more):
        label = f"{count} small tasks, all {form.way * form.small_shot}"
        changes = {"sampler": "exact", "shot": form.small_shot, "tasks": count}
        yield StudyRun(learner, label, f"{learner}-small-{count}", lite.name, changes)


def subsample(form: SmallForm, learner: str) -> Iterator[StudyRun]:
    """At each |H|: LITE, and a support set of these images only."""
    for h in form.h:
        if h < form.way:  # each class needs an image
            continue
        lite = lite_run(form, learner, h)
        yield lite._replace(against=lite.name)
        changes = {"sampler": "subsample", "h": h}
        yield StudyRun(learner, f"subsample, {h} images", f"{learner}-subsample-{h}", lite.name, changes)


def lite_run(form: SmallForm, learner: str, h: int, against: str = "") -> StudyRun:
    """The run with LITE at one |H|."""
    own = "" if form.sampler == USUAL_SAMPLER else f"-{form.sampler}"
    changes = {"h": h, "sampler": form.sampler}
    return StudyRun(
        learner, f"LITE{own.replace('-', ' ', 1)}, H = {h}", f"{learner}{own}-h{h}", against, changes, h
    )


ROWS: Final = {"table2": sweep, "small-tasks": small_tasks, "subsample": subsample}
HEADINGS: Final = {
    "table2": "minus all", "small-tasks": "minus LITE", "subsample": "minus LITE of the same H"
}  # fmt: skip
