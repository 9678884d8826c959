"""Collect a support set: images in any form, a label for each, and the names of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Integral
from pathlib import Path

from torch import Tensor

from learners.use.pictures import ImageInput, ImageInputs, image_names, is_hidden, list_images, load_pixels
from pipeline.errors import FIRST_FEW, SourceMissing, UsageError, first_few
from pipeline.records import ResizeMethod


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """The images of a support set, with labels and class names."""

    images: Sequence[ImageInput]
    labels: Sequence[int]
    """For each image, its position in `classes`."""
    classes: tuple[str, ...]

    def pixels(self, size: int, resizing: ResizeMethod) -> Tensor:
        """The pixels of all images; an error names the image and its class."""
        names = [
            f"{name} (of class {self.classes[label]!r})"
            for name, label in zip(image_names(self.images), self.labels, strict=True)
        ]
        return load_pixels(self.images, size, resizing, names)


def collect_support(
    images: ImageInputs | Mapping[str, ImageInputs],
    labels: Tensor | Sequence[int] | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> LabelledImages:
    """Find the images and their classes, and check that they fit; nothing is decoded yet.

    Without labels: a mapping, whose order is kept, or a folder with a folder for each class. With labels:
    numbers from 0, positions in `classes` if given; or names, in the order of `classes` or sorted.
    """
    if labels is None:
        if classes is not None:
            raise UsageError("`classes` names the labels of pictures; give `labels` as well")
        by_class = images if isinstance(images, Mapping) else _class_folders(images)
        listed = {str(name): list_images(some) for name, some in by_class.items()}
        numbers = [label for label, some in enumerate(listed.values()) for _ in some]
        support = LabelledImages(list(chain(*listed.values())), numbers, tuple(listed))
    elif isinstance(images, Mapping):
        raise UsageError("a mapping says which pictures are of which class; leave out `labels`")
    else:
        support = LabelledImages(list_images(images), *_number_labels(labels, classes))
    _check_support(support)
    return support


def _number_labels(
    labels: Tensor | Sequence[int] | Sequence[str], classes: Sequence[str] | None
) -> tuple[list[int], tuple[str, ...]]:
    """Labels as positions in the classes, and the classes' names."""
    values = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    if values and all(isinstance(value, str) for value in values):
        names = tuple(sorted(set(values)) if classes is None else classes)
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise UsageError(
                f"the labels hold {_quote_names(unknown)}, and the classes are {_quote_names(names)}"
            )
        return [names.index(value) for value in values], names
    numbers = [int(value) for value in values if isinstance(value, Integral)]
    if len(numbers) < len(values):
        raise UsageError(f"labels are whole numbers from 0, or names; got {values[:FIRST_FEW]}")
    used = sorted(set(numbers))
    if classes is None and used != [*range(len(used))]:
        raise UsageError(
            f"labels number the classes 0, 1, ... without a gap; got {used[:FIRST_FEW]}; or give names"
        )
    names = tuple(map(str, used if classes is None else classes))
    if used and not 0 <= used[0] <= used[-1] < len(names):
        raise UsageError(f"{len(names)} classes need labels 0 to {len(names) - 1}; got {used}")
    return numbers, names


def _check_support(support: LabelledImages) -> None:
    images, labels, classes = len(support.images), set(support.labels), support.classes
    if images != len(support.labels):
        raise UsageError(f"{images} pictures need a label each, got {len(support.labels)}")
    if len(set(classes)) < len(classes):
        raise UsageError(f"every class needs a name of its own, got {_quote_names(classes)}")
    empty = [name for label, name in enumerate(classes) if label not in labels]
    if empty:
        raise UsageError(
            f"every class needs a picture, and there is none of {_quote_names(empty)}; add one or leave the "
            "class out"
        )
    if len(classes) < 2:  # noqa: PLR2004 - the least that can be told apart
        only = f"one class only, {classes[0]!r}" if classes else "no class"
        raise UsageError(f"{only}: there is nothing to tell apart; show pictures of a second one")


def _class_folders(images: ImageInputs) -> dict[str, Path]:
    """The folders in a folder, by name."""
    if not isinstance(images, str | Path):
        raise UsageError(
            "pictures need labels; or give a mapping from class to pictures, or a folder with a folder "
            "for each class"
        )
    root = Path(images)
    if not root.is_dir():
        raise SourceMissing(f"{root} should be a folder with a folder of pictures for each class")
    inside = sorted(path for path in root.iterdir() if not is_hidden(path.name))
    loose = [path.name for path in inside if not path.is_dir()]
    if loose:
        raise UsageError(
            f"{root} holds a folder for each class, and {_quote_names(loose)} lies in none; move or remove it"
        )
    if not inside:
        raise SourceMissing(f"{root} should hold a folder of pictures for each class; it is empty")
    return {path.name: path for path in inside}


def _quote_names(names: Sequence[str]) -> str:
    return first_few([repr(name) for name in names])
