"""A fuzz target: a module of `tests/fuzz/targets/` that feeds bytes to one parser of foreign data."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from tests.fuzz.mutations import mutate_bytes

FOLDER: Final = Path(__file__).resolve().parent
LIMIT_MB: Final = 512  # memory that a target may take beyond what it has at the start
INPUT_SECONDS: Final = 10.0  # of processor time for one input


@dataclass(frozen=True)
class FuzzTarget:
    """One parser under test.

    `check` parses an input, swallows the documented errors and asserts what must hold of what was accepted:
    whatever else it raises is a find. `mutate` changes a valid input where plain changes would all fail at a
    checksum.
    """

    name: str
    title: str
    seeds: Sequence[bytes]
    check: Callable[[bytes], None]
    mutate: Callable[[bytes, random.Random], bytes]
    structured: bool
    """Whether `mutate` is the target's own."""
    limit_mb: int
    seconds: float

    @property
    def finds_folder(self) -> Path:
        return FOLDER / "finds" / self.name

    def finds(self) -> list[Path]:
        """Inputs that once failed, replayed for ever."""
        return sorted(path for path in self.finds_folder.glob("*") if path.is_file())


def target_names() -> list[str]:
    return sorted(path.stem for path in (FOLDER / "targets").glob("[!_]*.py"))


def load_target(name: str) -> FuzzTarget:
    """The target of that name, imported now: parsers are instrumented while they are imported."""
    module = import_module(f"tests.fuzz.targets.{name}")
    return FuzzTarget(
        name=name,
        title=(module.__doc__ or "").strip().splitlines()[0],
        seeds=module.seeds(),
        check=module.check,
        mutate=getattr(module, "mutate", mutate_bytes),
        structured=hasattr(module, "mutate"),
        limit_mb=getattr(module, "LIMIT_MB", LIMIT_MB),
        seconds=getattr(module, "SECONDS", INPUT_SECONDS),
    )
