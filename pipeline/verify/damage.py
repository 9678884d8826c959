"""What a check of shards can find, and what would mend it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pipeline.errors import IntegrityError, SourceMissing

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
class Problem:
    """One thing that is not as it should be."""

    dataset: str
    file: str
    """Relative to the dataset's folder."""
    what: str
    remedy: Remedy
    shard: int = -1
    key: str = ""
    """The sample, where one is meant."""
    offset: int = -1
    """Bytes from the start of the file, where a place is meant."""

    @property
    def kind(self) -> Kind:
        """How grave it is."""
        if self.remedy == "build":
            return "unfinished"
        return "warning" if self.remedy == "none" else "damaged"

    def __str__(self) -> str:
        place = [f"key {self.key}"] if self.key else []
        place += [f"byte {self.offset:,}"] if self.offset >= 0 else []
        where = f" ({', '.join(place)})" if place else ""
        return f"{self.dataset}/{self.file}{where}: {self.what}"


class Findings(list[Problem]):
    """The problems of one dataset, or of one of its shards, as they come."""

    def __init__(self, root: Path, shard: int = -1) -> None:
        super().__init__()
        self._root, self._shard = root, shard

    def note(
        self, file: Path, what: str, remedy: Remedy, *, key: str = "", offset: int = -1
    ) -> None:
        """One more problem."""
        problem = Problem(
            dataset=self._root.resolve().name,
            file=file.relative_to(self._root).as_posix(),
            what=what,
            remedy=remedy,
            shard=self._shard,
            key=key,
            offset=offset,
        )
        self.append(problem)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a check came to."""

    datasets: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
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
        """0, or the code of the gravest problem."""
        kinds = {problem.kind for problem in self.problems}
        if "damaged" in kinds:
            return IntegrityError.exit_code
        return SourceMissing.exit_code if "unfinished" in kinds else 0

    def __add__(self, other: Report) -> Report:
        return Report(
            datasets=self.datasets + other.datasets,
            problems=self.problems + other.problems,
            files=self.files + other.files,
            bytes=self.bytes + other.bytes,
            members=self.members + other.members,
        )
