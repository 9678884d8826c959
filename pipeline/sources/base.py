"""The base class of all sources: a survey lists items, and `pictures` reads the pixels of some of them.

A source of your own needs only `survey`; `pictures` below reads items whose bytes lie in files:

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
from pipeline.sources.spans import SpanReader, unreadable_reason


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A dataset on disk. Small and picklable: each worker gets a copy."""

    name: str
    """The dataset's folder name in the shard set."""
    root: Path
    """The folder (or archive) it lies in."""
    scratch: Path | None = None
    """Where a source may keep derived files, such as an inflated .tgz; the build sets it."""
    limit_per_class: int | None = None
    """The build's limit, for sources that would otherwise list far too many images."""

    @abstractmethod
    def survey(self) -> Survey:
        """List all items without decoding any. Raises SourceMissing or IntegrityError."""

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """Yield the pixels of each item, in the order given; a Rejected in the place of a bad one."""
        with SpanReader(self.root, self.scratch) as reader:
            for item in items:
                yield read_or_reject(item, reader.read)

    def libraries(self, items: Sequence[Item]) -> dict[str, str]:  # noqa: ARG002  (subclasses look)
        """Name and version of what decodes these items, beyond the libraries of the build itself."""
        return {}


def read_or_reject(item: Item, read: Callable[[Item], Pixels | Rejected]) -> Pixels | Rejected:
    """What `read` returns, or why it failed; a source that has gone away still raises."""
    try:
        return read(item)
    except IntegrityError as error:
        return Rejected(item.name, str(error))
    except OSError as error:
        return Rejected(item.name, unreadable_reason(error))
