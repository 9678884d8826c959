"""The problems that a check of shards can find, and what would repair them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.layout import DatasetLayout

Remedy: TypeAlias = Literal["shard", "plan", "idx", "summary", "wids", "build", "lost", "none"]
Kind: TypeAlias = Literal["damaged", "unfinished", "warning"]

CURES: Final[dict[Remedy, str]] = {
    "shard": "--repair builds this shard again from the source",
    "plan": "--repair makes the plan again from the source",
    "idx": "--repair writes it again from the tar",
    "summary": "--repair writes it again from the build's records",
    "wids": "--repair writes it again from the manifest",
    "build": "run the same pipeline.build command again, it goes on where it stopped",
    "lost": "nothing is left to mend it from; delete the folder and build it again",
    "none": "no reader opens it; remove it if nobody needs it",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetProblem:
    """One thing that is damaged, missing or superfluous in a dataset."""

    dataset: str
    file: str
    """Relative to the dataset's folder."""
    what: str
    remedy: Remedy
    shard: int = -1
    key: str = ""
    """The sample, if the problem is in one."""
    offset: int = -1
    """Bytes from the start of the file, if the place is known."""

    @property
    def kind(self) -> Kind:
        """How serious it is."""
        if self.remedy == "build":
            return "unfinished"
        return "warning" if self.remedy == "none" else "damaged"

    def __str__(self) -> str:
        place = [f"key {self.key}"] if self.key else []
        place += [f"byte {self.offset:,}"] if self.offset >= 0 else []
        where = f" ({', '.join(place)})" if place else ""
        return f"{self.dataset}/{self.file}{where}: {self.what}"


class ProblemList(list[DatasetProblem]):
    """The problems of one dataset, or of one of its shards, in the order of their discovery."""

    def __init__(self, layout: DatasetLayout, shard: int = -1) -> None:
        super().__init__()
        self.layout, self._shard = layout, shard

    def note(self, file: Path, what: str, remedy: Remedy, *, key: str = "", offset: int = -1) -> None:
        """Add a problem."""
        problem = DatasetProblem(
            dataset=self.layout.root.resolve().name,
            file=file.relative_to(self.layout.root).as_posix(),
            what=what,
            remedy=remedy,
            shard=self._shard,
            key=key,
            offset=offset,
        )
        self.append(problem)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """The result of a check."""

    datasets: tuple[str, ...] = ()
    problems: tuple[DatasetProblem, ...] = ()
    files: int = 0
    bytes: int = 0
    """Read and hashed."""
    members: int = 0
    """Tar members compared with the index."""

    @property
    def ok(self) -> bool:
        """Whether everything is there and intact; warnings do not count."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """0, or the code of the most serious problem."""
        kinds = {problem.kind for problem in self.problems}
        if "damaged" in kinds:
            return IntegrityError.exit_code
        return SourceMissing.exit_code if "unfinished" in kinds else 0

    def __add__(self, other: CheckReport) -> CheckReport:
        return CheckReport(
            datasets=self.datasets + other.datasets,
            problems=self.problems + other.problems,
            files=self.files + other.files,
            bytes=self.bytes + other.bytes,
            members=self.members + other.members,
        )
