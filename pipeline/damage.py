"""What a check of shards can find, and what would mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from pipeline.errors import IntegrityError, SourceMissing

Kind: TypeAlias = Literal["damaged", "unfinished", "warning"]
Remedy: TypeAlias = Literal["shard", "plan", "idx", "summary", "wids", "build", "none"]

CURES: Final[dict[Remedy, str]] = {
    "shard": "--repair builds this shard again from the source",
    "plan": "--repair makes the plan again from the source",
    "idx": "--repair writes it again from the tar",
    "summary": "--repair writes it again from the build's records",
    "wids": "--repair writes it again from the manifest",
    "build": "run the same pipeline.build command again, it goes on where it stopped",
    "none": "nothing reads it; remove it if it is not yours",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is not as it should be."""

    dataset: str
    file: str
    """Relative to the dataset's folder."""
    what: str
    remedy: Remedy
    kind: Kind = "damaged"
    shard: int = -1
    key: str = ""
    """The sample, where one is meant."""
    offset: int = -1
    """Bytes from the start of the file, where a place is meant."""

    def __str__(self) -> str:
        key = f" key {self.key}" if self.key else ""
        offset = f" at byte {self.offset:,}" if self.offset >= 0 else ""
        return f"{self.dataset}/{self.file}:{key}{offset}{':' * bool(key + offset)} {self.what}"


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
        return all(problem.kind == "warning" for problem in self.problems)

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
