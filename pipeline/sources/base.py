"""What every source is: a survey of items, and the pixels of the items asked for.

A source of one's own is a class with `survey`; `pictures` below serves items whose bytes lie in files:

    class Scans(Source):
        def survey(self) -> Survey:
            classes = tuple(ClassRecord(name=d.name) for d in sorted(self.root.iterdir()))
            items = (Item(name=f"{c.name}/{f.name}", class_id=i, file=f"{c.name}/{f.name}")
                     for i, c in enumerate(classes) for f in sorted((self.root / c.name).iterdir()))
            return Survey(classes=classes, items=items)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import IntegrityError
from pipeline.records import Item, Pixels, Rejected, Survey
from pipeline.sources.spans import FATAL_ERRNO, SpanReader


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A dataset on disk. Small and picklable: each worker gets a copy."""

    name: str
    """The dataset's folder name in the shard set."""
    root: Path
    """The folder (or archive) it lies in."""
    scratch: Path | None = None
    """Where a source may keep derived files (an inflated .tgz); the build sets it."""
    limit_per_class: int | None = None
    """The build's cap, for sources that would otherwise list far too much."""

    @abstractmethod
    def survey(self) -> Survey:
        """List everything, decode nothing. Raises SourceMissing or IntegrityError."""

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """The pixels of each item, in the order asked; a Rejected in the place of one that is bad."""
        with SpanReader(self.root, self.scratch) as reader:
            for item in items:
                yield read_or_reject(item, reader.read)

    def libraries(self, items: Sequence[Item]) -> dict[str, str]:  # noqa: ARG002  (others look)
        """Name and version of what decoded these items, beyond what the images stage uses."""
        return {}


def read_or_reject(item: Item, read: Callable[[Item], Pixels | Rejected]) -> Pixels | Rejected:
    """What `read` gives, or the reason it cannot; a source that went away stays an error."""
    try:
        return read(item)
    except IntegrityError as error:
        return Rejected(item.name, str(error))
    except OSError as error:
        if error.errno in FATAL_ERRNO:
            raise
        return Rejected(item.name, f"cannot be read: {error.strerror}")
