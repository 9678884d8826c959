"""What a learner is asked: tasks of datasets, each with a name by which it is known on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.episodes import Sampler
from pipeline.records import Split
from pipeline.samplers import Orbit


class Key(NamedTuple):
    """Which task it is."""

    dataset: str
    mode: str
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The tasks of one dataset; of ORBIT, of one mode."""

    dataset: str
    sampler: Sampler
    """Tasks 0 to `tasks` - 1."""
    tasks: int
    split: Split
    """Of the classes that are asked about; "" for all."""
    group: str = ""
    """VTAB: natural, specialised or structured. ORBIT: the mode."""

    @property
    def mode(self) -> str:
        """ORBIT's; "" under other protocols, where a dataset has one part only."""
        return self.group if isinstance(self.sampler, Orbit) else ""

    @property
    def clip(self) -> int:
        """Frames of a clip."""
        return self.sampler.rules.clip_length if isinstance(self.sampler, Orbit) else 1

    @property
    def keys(self) -> list[Key]:
        """Its tasks."""
        return [Key(self.dataset, self.mode, number) for number in range(self.tasks)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """All that a learner is asked under a protocol."""

    parts: tuple[Part, ...]
    averages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By name, the datasets that an average is over, there or not."""
    notes: tuple[str, ...] = ()
    """What makes it less than the protocol."""
