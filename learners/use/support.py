"""Pictures that somebody shows, with the names of their classes, become a support set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

from torch import Tensor

from learners.use.pictures import NAMED, Picture, Pictures, described, listed, litter, pixels
from pipeline.errors import SourceMissing, UsageError, few
from pipeline.records import Resizing


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """Pictures to adapt to."""

    pictures: Sequence[Picture]
    labels: Sequence[int]
    """One for each picture: a position in `classes`."""
    classes: tuple[str, ...]

    def pixels(self, size: int, how: Resizing) -> Tensor:
        """All pictures; an error says their class."""
        names = [
            f"{name} (of class {self.classes[label]!r})"
            for name, label in zip(described(self.pictures), self.labels, strict=True)
        ]
        return pixels(self.pictures, size, how, names)


def support(
    images: Pictures | Mapping[str, Pictures],
    labels: Tensor | Sequence[int] | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Support:
    """What somebody shows, with its classes found and checked; nothing is decoded yet.

    Without labels: a mapping, whose order is kept, or a folder of a folder for each class. With labels:
    numbers from 0, positions in `classes` if given; or names, in the order of `classes` or sorted.
    """
    if labels is None:
        if classes is not None:
            raise UsageError("`classes` names the labels of pictures; give `labels` as well")
        by_class = images if isinstance(images, Mapping) else _folders(images)
        several = {str(name): listed(some) for name, some in by_class.items()}
        numbers = [label for label, some in enumerate(several.values()) for _ in some]
        found = Support([one for some in several.values() for one in some], numbers, tuple(several))
    elif isinstance(images, Mapping):
        raise UsageError("a mapping says which pictures are of which class; leave `labels` away")
    else:
        found = Support(listed(images), *_numbered(labels, classes))
    _check(found)
    return found


def _numbered(
    labels: Tensor | Sequence[int] | Sequence[str], classes: Sequence[str] | None
) -> tuple[list[int], tuple[str, ...]]:
    values = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    if values and all(isinstance(value, str) for value in values):
        names = tuple(sorted(set(values)) if classes is None else classes)
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise UsageError(
                f"the labels hold {_quoted(unknown)}, and the classes are {_quoted(names)}"
            )
        return [names.index(value) for value in values], names
    numbers = [int(value) for value in values if isinstance(value, Integral)]
    if len(numbers) < len(values):
        raise UsageError(f"labels are whole numbers from 0, or names; got {values[:NAMED]}")
    known = sorted(set(numbers))
    if classes is None and known != [*range(len(known))]:
        raise UsageError(
            f"labels number the classes 0, 1, ... without a gap; got {known[:NAMED]}; names do as well"
        )
    names = tuple(map(str, known if classes is None else classes))
    if known and not 0 <= known[0] <= known[-1] < len(names):
        raise UsageError(f"{len(names)} classes need labels 0 to {len(names) - 1}; got {known}")
    return numbers, names


def _check(found: Support) -> None:
    if len(found.pictures) != len(found.labels):
        raise UsageError(
            f"{len(found.pictures)} pictures need a label each, got {len(found.labels)}"
        )
    if len(set(found.classes)) < len(found.classes):
        raise UsageError(f"every class needs a name of its own, got {_quoted(found.classes)}")
    shown = set(found.labels)
    empty = [name for label, name in enumerate(found.classes) if label not in shown]
    if empty:
        raise UsageError(
            f"every class needs a picture, and there is none of {_quoted(empty)}; add one or leave the "
            "class out"
        )
    if len(found.classes) < 2:  # noqa: PLR2004 - the least that can be told apart
        only = f"one class only, {found.classes[0]!r}" if found.classes else "no class"
        raise UsageError(f"{only}: there is nothing to tell apart; show pictures of a second one")


def _folders(images: Pictures) -> dict[str, Path]:
    """The folders in a folder, by name."""
    if not isinstance(images, str | Path):
        raise UsageError(
            "pictures need labels; or give a mapping from class to pictures, or a folder with a folder "
            "for each class"
        )
    root = Path(images)
    if not root.is_dir():
        raise SourceMissing(f"{root} should be a folder with a folder of pictures for each class")
    inside = sorted(path for path in root.iterdir() if not litter(path.name))
    loose = [path.name for path in inside if not path.is_dir()]
    if loose:
        raise UsageError(
            f"{root} holds a folder for each class, and {_quoted(loose)} lies in none; move it or take it "
            "away"
        )
    if not inside:
        raise SourceMissing(f"{root} should hold a folder of pictures for each class; it is empty")
    return {path.name: path for path in inside}


def _quoted(names: Sequence[str]) -> str:
    return few([repr(name) for name in names])
