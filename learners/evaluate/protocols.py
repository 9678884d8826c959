"""The protocols and their options: which tasks of which datasets they ask for, and which averages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar, Final, Literal

from learners.evaluate.dataset_choice import choose_datasets, missing_datasets, validation_names
from learners.evaluate.scores import accuracy_scores, orbit_scores
from learners.evaluate.task_set import DatasetTasks, TaskSet
from pipeline.errors import UsageError
from pipeline.records import Split
from pipeline.samplers import Fixed, MetaDataset, Orbit, Vtab
from pipeline.samplers.orbit.rules import OrbitMode, ProtocolName
from pipeline.samplers.vtab import VTAB_GROUPS
from pipeline.settings import setting
from pipeline.shardset import ShardSet

MD_TEST: Final = (
    "aircraft", "cu_birds", "dtd", "fungi", "mscoco", "omniglot", "quickdraw", "traffic_sign",
)  # fmt: skip
"""The datasets that MD-v2's score is the mean over."""
TASKS_PER_DATASET: Final = 600  # in the papers
ORBIT_MODES: Final[Mapping[str, tuple[OrbitMode, ...]]] = {"2021": ("cle-ve", "clu-ve"), "2022": ("clu-ve",)}
"""The modes that each ORBIT protocol reports."""
ALL_DATASETS: Final = "all"  # name of the average
VTAB_GROUP_OF: Final = {task: group for group, tasks in VTAB_GROUPS.items() for task in tasks}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolOptions:
    """The options of a protocol; each field is a flag of the command."""

    name: ClassVar[str]
    seed: int = setting(0, "of the tasks")
    datasets: tuple[str, ...] = setting((), "(those that the protocol has)", metavar="NAME")

    def task_set(self, shards: ShardSet) -> TaskSet:
        """The tasks that these shards allow; a UsageError if there are none."""
        raise NotImplementedError

    def validation_set(self, shards: ShardSet, tasks: int) -> TaskSet | None:  # noqa: ARG002
        """So many tasks of each dataset with validation classes, of the same kind; None where there are none.

        A UsageError if the validation classes do not allow tasks of this kind.
        """
        return None

    def described(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @property
    def label(self) -> str:
        """The protocol and its variant, for the name of the results folder."""
        return self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class MetaDatasetOptions(ProtocolOptions):
    """MD-v2: Meta-Dataset's tasks of varying way and shot, of eight datasets."""

    name: ClassVar[str] = "md"
    tasks: int = setting(
        TASKS_PER_DATASET, "md, fixed: of each dataset; more may be added later", metavar="N"
    )
    split: Split = setting("test", "md, orbit, fixed: of the classes; '' is all")

    def task_set(self, shards: ShardSet) -> TaskSet:
        names = choose_datasets(shards, self.datasets, MD_TEST, "test dataset of Meta-Dataset")
        datasets = tuple(
            DatasetTasks(
                dataset=name, tasks=_positive("tasks", self.tasks), split=self.split,
                sampler=MetaDataset(shards, split=self.split, seed=self.seed, datasets=[name]),
            )
            for name in names
        )  # fmt: skip
        wanted = self.datasets or MD_TEST
        notes = missing_datasets(wanted, names)
        return TaskSet(datasets=datasets, averages={ALL_DATASETS: wanted}, notes=notes)

    def validation_set(self, shards: ShardSet, tasks: int) -> TaskSet | None:
        names = validation_names(shards, self.split, tuple(shards.datasets))
        if not names:
            return None
        return replace(self, split="validation", datasets=names, tasks=tasks).task_set(shards)


@dataclass(frozen=True, kw_only=True, slots=True)
class VtabOptions(ProtocolOptions):
    """VTAB-v2: a thousand support images and a whole test set for each of eighteen tasks."""

    name: ClassVar[str] = "vtab"
    splits: Literal["vtab", "lite"] = setting("vtab", "vtab: the benchmark's or LITE's")
    query_limit: int | None = setting(None, "vtab: query images of a task, for a quick look", metavar="N")

    def task_set(self, shards: ShardSet) -> TaskSet:
        names = choose_datasets(shards, self.datasets, tuple(VTAB_GROUP_OF), "task of VTAB")
        if foreign := [name for name in names if name not in VTAB_GROUP_OF]:
            raise UsageError(f"{', '.join(foreign)} is no task of VTAB; it has {', '.join(VTAB_GROUP_OF)}")
        datasets = tuple(self._one_task(shards, name) for name in names)
        wanted = {
            group: tuple(name for name in members if not self.datasets or name in self.datasets)
            for group, members in {**VTAB_GROUPS, ALL_DATASETS: tuple(VTAB_GROUP_OF)}.items()
        }
        limit = self.query_limit
        notes = [f"at most {limit} query images of each task"] if limit else []
        return TaskSet(
            datasets=datasets,
            averages={name: members for name, members in wanted.items() if members},
            notes=(
                *missing_datasets(wanted[ALL_DATASETS], names),
                *notes,
                *filter(None, map(_unseen_classes_note, datasets)),
            ),
        )

    def _one_task(self, shards: ShardSet, name: str) -> DatasetTasks:
        """The task of a dataset, from a sampler of its own: its draws do not depend on the other datasets."""
        sampler = Vtab(
            shards, protocol=self.splits, tasks=[name], query_limit=self.query_limit, seed=self.seed
        )
        group = VTAB_GROUP_OF[name]
        return DatasetTasks(
            dataset=name, sampler=sampler, tasks=1, split="", group=group,
            scorer=partial(accuracy_scores, group=group),
        )  # fmt: skip

    @property
    def label(self) -> str:
        return f"vtab-{self.splits}"


@dataclass(frozen=True, kw_only=True, slots=True)
class OrbitOptions(ProtocolOptions):
    """ORBIT: a user's objects, learnt from clean videos and recognised frame by frame."""

    name: ClassVar[str] = "orbit"
    orbit: ProtocolName = setting("2021", "orbit: the paper's, or its code's since")
    mode: tuple[OrbitMode, ...] = setting((), "orbit: (2021: both; 2022: clu-ve)")
    tasks_per_user: int | None = setting(None, "orbit: (2021: 5; 2022: 50)", metavar="N")
    split: Split = "test"

    def task_set(self, shards: ShardSet) -> TaskSet:
        (name, *more) = choose_datasets(shards, self.datasets, ("orbit",), "dataset orbit")
        if more:
            raise UsageError(f"--protocol orbit is about one dataset, not {len(more) + 1}")
        datasets, notes = [], []
        for mode in self.mode or ORBIT_MODES[self.orbit]:
            changes = {} if self.tasks_per_user is None else {"tasks_per_user": self.tasks_per_user}
            sampler = Orbit(
                shards, split=self.split, protocol=self.orbit, dataset=name, seed=self.seed,
                mode=mode, **changes,
            )  # fmt: skip
            datasets.append(
                DatasetTasks(
                    dataset=name, sampler=sampler, tasks=len(sampler), split=self.split, group=mode,
                    scorer=partial(orbit_scores, protocol=self.orbit),
                    clip=sampler.rules.clip_length, by_video=True, challenge=self.orbit == "2022",
                )
            )  # fmt: skip
            if sampler.dropped:
                notes.append(f"{mode}: {_count_names(d.what for d in sampler.dropped)} left out")
        return TaskSet(datasets=tuple(datasets), notes=tuple(notes))

    def validation_set(self, shards: ShardSet, tasks: int) -> TaskSet | None:
        """The first tasks of the validation users."""
        named = choose_datasets(shards, self.datasets, ("orbit",), "dataset orbit")
        if not validation_names(shards, self.split, named):
            return None
        whole = replace(self, split="validation").task_set(shards)
        return replace(whole, datasets=tuple(replace(d, tasks=min(d.tasks, tasks)) for d in whole.datasets))

    def described(self) -> dict[str, Any]:
        """Plain values, for JSON, with the modes that the protocol has by default."""
        modes = list(self.mode or ORBIT_MODES[self.orbit])
        return {**ProtocolOptions.described(self), "mode": modes}

    @property
    def label(self) -> str:
        return f"orbit-{self.orbit}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedOptions(ProtocolOptions):
    """n-way k-shot tasks of any dataset, of classes anywhere or of one superclass."""

    name: ClassVar[str] = "fixed"
    tasks: int = TASKS_PER_DATASET
    way: int = setting(5, "fixed: classes of a task")
    shot: int = setting(1, "fixed: support images of a class")
    query: int = setting(10, "fixed: query images of a class")
    within: bool = setting(False, "fixed: classes of one superclass: alphabet, user")
    min_examples_in_class: int = setting(0, "fixed: leave smaller classes out", metavar="N")
    split: Split = "test"

    def task_set(self, shards: ShardSet) -> TaskSet:
        what = f"dataset with the split {self.split!r}"
        names = choose_datasets(shards, self.datasets, shards.with_split(self.split), what)
        samplers = {name: self._sampler(shards, name) for name in names}
        tasks = _positive("tasks", self.tasks)
        return TaskSet(
            datasets=tuple(
                DatasetTasks(dataset=name, sampler=sampler, tasks=tasks, split=self.split)
                for name, sampler in samplers.items()
            ),
            averages={ALL_DATASETS: names} if len(names) > 1 else {},
            notes=tuple(note for sampler in samplers.values() for note in sampler.left_out),
        )

    def validation_set(self, shards: ShardSet, tasks: int) -> TaskSet | None:
        names = validation_names(shards, self.split, self.datasets or tuple(shards.datasets))
        if not names:
            return None
        return replace(self, split="validation", datasets=names, tasks=tasks).task_set(shards)

    def _sampler(self, shards: ShardSet, name: str) -> Fixed:
        return Fixed(
            shards, split=self.split, way=self.way, shot=self.shot, query=self.query, seed=self.seed,
            datasets=[name], min_examples_in_class=self.min_examples_in_class, within=self.within,
        )  # fmt: skip

    @property
    def label(self) -> str:
        within = "-within" if self.within else ""
        return f"fixed-{self.way}way-{self.shot}shot{within}"


PROTOCOLS: Final[Mapping[str, type[ProtocolOptions]]] = {
    kind.name: kind for kind in (MetaDatasetOptions, VtabOptions, OrbitOptions, FixedOptions)
}


def _unseen_classes_note(tasks: DatasetTasks) -> str:
    """A note on the classes that a thousand support images happen to leave out, but the queries have."""
    plan = tasks.sampler[0]
    unseen = plan.shots == 0
    queries = int(unseen[plan.query.labels].sum())
    if not queries:
        return ""
    return (
        f"{tasks.dataset}: {int(unseen.sum())} of {plan.way} classes have no support image; their "
        f"{queries:,} query images count as wrong"
    )


def _count_names(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(f"{listed.count(name)} {name}(s)" for name in dict.fromkeys(listed))


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise UsageError(f"--{name} starts at 1, got {value}")
    return value
