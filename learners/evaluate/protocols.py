"""A protocol and its options become work: of which datasets, which tasks, and what is averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Literal, TypeAlias

from learners.evaluate.work import Part, Work
from pipeline.errors import UsageError
from pipeline.index import Dataset
from pipeline.records import Split
from pipeline.samplers import Fixed, MetaDataset, Orbit, Vtab
from pipeline.samplers.vtab import GROUPS
from pipeline.shardset import ShardSet

MD_TEST: Final = (
    "aircraft", "cu_birds", "dtd", "fungi", "mscoco", "omniglot", "quickdraw", "traffic_sign",
)  # fmt: skip
"""The datasets that MD-v2's score is the mean over."""
TASKS: Final = 600  # of each dataset, in the papers
Mode: TypeAlias = Literal["cle-ve", "clu-ve"]
MODES: Final[Mapping[str, tuple[Mode, ...]]] = {"2021": ("cle-ve", "clu-ve"), "2022": ("clu-ve",)}
"""What each ORBIT protocol reports."""
ALL: Final = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a protocol may be narrowed by: each field is a flag of the command."""

    name: ClassVar[str]
    seed: int = 0
    datasets: tuple[str, ...] = ()
    """None: those that the protocol has."""

    def work(self, shards: ShardSet) -> Work:
        """The tasks that these shards allow. UsageError where there is none."""
        raise NotImplementedError

    def described(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @property
    def label(self) -> str:
        """Of a folder: what tells this kind of the protocol from others."""
        return self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Md(Options):
    """MD-v2: Meta-Dataset's tasks of varying way and shot, of eight datasets."""

    name: ClassVar[str] = "md"
    tasks: int = TASKS
    split: Split = "test"

    def work(self, shards: ShardSet) -> Work:
        known = present(shards, self.datasets, MD_TEST, "test dataset of Meta-Dataset")
        parts = tuple(
            Part(
                dataset=name, tasks=_from_one("tasks", self.tasks), split=self.split,
                sampler=MetaDataset(shards, split=self.split, seed=self.seed, datasets=[name]),
            )
            for name in known
        )  # fmt: skip
        wanted = self.datasets or MD_TEST
        return Work(parts=parts, averages={ALL: wanted}, notes=_missing(wanted, known))


@dataclass(frozen=True, kw_only=True, slots=True)
class VtabTasks(Options):
    """VTAB-v2: a thousand support images and a whole test set for each of eighteen tasks."""

    name: ClassVar[str] = "vtab"
    splits: Literal["vtab", "lite"] = "vtab"
    query_limit: int | None = None

    def work(self, shards: ShardSet) -> Work:
        groups = {name: group for group, names in GROUPS.items() for name in names}
        known = present(shards, self.datasets, tuple(groups), "task of VTAB")
        if foreign := [name for name in known if name not in groups]:
            raise UsageError(f"{', '.join(foreign)} is no task of VTAB; it has {', '.join(groups)}")
        parts = tuple(self._part(shards, name, groups[name]) for name in known)
        wanted = {
            group: tuple(name for name in names if not self.datasets or name in self.datasets)
            for group, names in {**GROUPS, ALL: tuple(groups)}.items()
        }
        limit = self.query_limit
        notes = [f"at most {limit} query images of each task"] if limit else []
        return Work(
            parts=parts,
            averages={name: names for name, names in wanted.items() if names},
            notes=(*_missing(wanted[ALL], known), *notes, *filter(None, map(_unseen, parts))),
        )

    def _part(self, shards: ShardSet, name: str, group: str) -> Part:
        """A sampler of this task alone, so that its draws do not depend on which others are there."""
        sampler = Vtab(
            shards, protocol=self.splits, tasks=[name], query_limit=self.query_limit, seed=self.seed
        )
        return Part(dataset=name, sampler=sampler, tasks=1, split="", group=group)

    @property
    def label(self) -> str:
        return f"vtab-{self.splits}"


@dataclass(frozen=True, kw_only=True, slots=True)
class OrbitTasks(Options):
    """ORBIT: a user's objects, learnt from clean videos and asked about frame by frame."""

    name: ClassVar[str] = "orbit"
    orbit: Literal["2021", "2022"] = "2021"
    mode: tuple[Mode, ...] = ()
    tasks_per_user: int | None = None
    split: Literal["validation", "test"] = "test"

    def work(self, shards: ShardSet) -> Work:
        (name, *more) = present(shards, self.datasets, ("orbit",), "dataset orbit")
        if more:
            raise UsageError(f"--protocol orbit is about one dataset, not {len(more) + 1}")
        parts, notes = [], []
        for mode in self.mode or MODES[self.orbit]:
            changes = {} if self.tasks_per_user is None else {"tasks_per_user": self.tasks_per_user}
            sampler = Orbit(
                shards, split=self.split, protocol=self.orbit, dataset=name, seed=self.seed,
                mode=mode, **changes,
            )  # fmt: skip
            parts.append(
                Part(
                    dataset=name, sampler=sampler, tasks=len(sampler), split=self.split, group=mode
                )
            )
            if sampler.dropped:
                notes.append(f"{mode}: {_counted(d.what for d in sampler.dropped)} left out")
        return Work(parts=tuple(parts), notes=tuple(notes))

    def described(self) -> dict[str, Any]:
        """As the others', with the modes that it comes to."""
        return {**Options.described(self), "mode": list(self.mode or MODES[self.orbit])}

    @property
    def label(self) -> str:
        return f"orbit-{self.orbit}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedTasks(Options):
    """n-way k-shot tasks of any dataset, of classes anywhere or of one superclass."""

    name: ClassVar[str] = "fixed"
    tasks: int = TASKS
    way: int = 5
    shot: int = 1
    query: int = 10
    within: bool = False
    min_examples_in_class: int = 0
    split: Split = "test"

    def work(self, shards: ShardSet) -> Work:
        what = f"dataset with the split {self.split!r}"
        known = present(shards, self.datasets, shards.with_split(self.split), what)
        samplers = {name: self._sampler(shards, name) for name in known}
        parts = tuple(
            Part(dataset=n, sampler=sampler, tasks=_from_one("tasks", self.tasks), split=self.split)
            for n, sampler in samplers.items()
        )
        left_out = (note for sampler in samplers.values() for note in sampler.left_out)
        averages = {ALL: known} if len(known) > 1 else {}
        return Work(parts=parts, averages=averages, notes=tuple(left_out))

    def _sampler(self, shards: ShardSet, name: str) -> Fixed:
        return Fixed(
            shards, split=self.split, way=self.way, shot=self.shot, query=self.query, seed=self.seed,
            datasets=[name], min_examples_in_class=self.min_examples_in_class, within=self.within,
        )  # fmt: skip

    @property
    def label(self) -> str:
        within = "-within" if self.within else ""
        return f"fixed-{self.way}way-{self.shot}shot{within}"


PROTOCOLS: Final[Mapping[str, type[Options]]] = {
    kind.name: kind for kind in (Md, VtabTasks, OrbitTasks, FixedTasks)
}


def present(
    shards: ShardSet, named: Sequence[str], usual: Sequence[str], what: str
) -> tuple[str, ...]:
    """Those named, each of which must be there, or those of the usual ones that are."""
    if len(set(named)) < len(named):
        raise UsageError(f"--datasets takes different names, got {' '.join(named)}")
    found = tuple(name for name in named or usual if name in shards.datasets)
    held = ", ".join(map(_with_splits, shards))
    if named and len(found) < len(named):
        absent = ", ".join(name for name in named if name not in found)
        raise UsageError(f"{shards.root} has no dataset {absent}; it has {held}")
    if not found:
        raise UsageError(
            f"{shards.root} has no {what}; it has {held}; name others with --datasets, or build it with "
            "python -m pipeline.build"
        )
    return found


def _with_splits(dataset: Dataset) -> str:
    splits = ", ".join(filter(None, dataset.manifest.splits))
    return f"{dataset.manifest.name} ({splits})" if splits else dataset.manifest.name


def _missing(wanted: Sequence[str], found: Sequence[str]) -> tuple[str, ...]:
    absent = [name for name in wanted if name not in found]
    if not absent:
        return ()
    return (f"{len(absent)} of {len(wanted)} datasets are not in the shards: {', '.join(absent)}",)


def _unseen(part: Part) -> str:
    """What a thousand support images do not show, and is asked about all the same."""
    plan = part.sampler[0]
    unseen = plan.shots == 0
    asked = int(unseen[plan.query.labels].sum())
    if not asked:
        return ""
    return (
        f"{part.dataset}: {int(unseen.sum())} of {plan.way} classes have no support image; their "
        f"{asked:,} query images count as wrong"
    )


def _counted(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(f"{found.count(name)} {name}(s)" for name in dict.fromkeys(found))


def _from_one(name: str, value: int) -> int:
    if value < 1:
        raise UsageError(f"--{name} starts at 1, got {value}")
    return value
