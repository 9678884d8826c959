"""Datasets that Meta-Dataset's own tools have converted: dataset_spec.json and one TFRecord per class.

Listing reads twelve bytes of each record and takes what lies between on trust. The trust ends when a
picture is read: then its record's checksum and label are verified, so that every byte is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import IntegrityError, SourceMissing, few
from pipeline.records import Item, Pixels, Rejected, SourceFile, Survey
from pipeline.sources.base import Source
from pipeline.sources.tfrecords.framing import FOOTER, checked_data, parse_example, read_records
from pipeline.sources.tfrecords.spec import FILE_PATTERN, PICKLE, SPEC, Spec, read_spec


@dataclass(frozen=True, kw_only=True)
class MetaRecordsSource(Source):
    """One converted dataset; `root` is its folder, an item is one record."""

    def survey(self) -> Survey:
        """The spec's classes. The number of files, and of records in each, must be what it says."""
        spec = read_spec(self.root / SPEC)
        _check_folder_name(self.root, spec.name)
        names = [SPEC, *(FILE_PATTERN.format(number) for number in range(len(spec.classes)))]
        _check_files(self.root, names)
        files = (SourceFile(name=name, bytes=(self.root / name).stat().st_size) for name in names)
        return Survey(
            classes=spec.classes,
            items=self._items(spec),
            files=tuple(files),
            hierarchy=spec.hierarchy,
        )

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """The encoded pictures, out of records whose checksum and label are right."""
        framed = [item._replace(length=item.length + FOOTER.size) for item in items]
        for item, record in zip(items, super().pictures(framed), strict=True):
            if not isinstance(record, bytes):
                yield record
                continue
            try:
                yield _picture(checked_data(record, item.name), item.class_id)
            except IntegrityError as error:
                yield Rejected(item.name, str(error))

    def _items(self, spec: Spec) -> Iterator[Item]:
        for number, (record, count) in enumerate(zip(spec.classes, spec.images, strict=True)):
            name = FILE_PATTERN.format(number)
            spans = list(read_records(self.root / name))
            if len(spans) != count:
                raise IntegrityError(
                    f"{self.root / name} holds {len(spans):,} records and {SPEC} says {count:,}; "
                    "copy the file again, or convert the dataset again"
                )
            for span in spans[:1]:
                _check_label(self.root / name, span, number)
            for place, span in enumerate(spans):
                yield Item(f"{name}:{place}", number, record.split, name, *span)


def is_converted(folder: Path) -> bool:
    """Also one with nothing but a pickled spec, so that reading it says what is wrong."""
    return (folder / SPEC).is_file() or (folder / PICKLE).is_file()


def _check_folder_name(root: Path, name: str) -> None:
    # An error and no warning: specs get edited and copied by hand, and ImageNet's two versions give
    # the same files other names. Meta-Dataset's own readers expect this too.
    if name not in (root.absolute().name, root.resolve().name):
        raise IntegrityError(
            f"{root / SPEC} is that of {name!r}; if the records are too, rename their folder to "
            f"{name!r}, else put the right {SPEC} there"
        )


def _check_files(root: Path, names: Sequence[str]) -> None:
    present = {path.name for path in root.glob(FILE_PATTERN.format("*"))}
    expected = set(names) - {SPEC}
    if missing := [name for name in names[1:] if name not in present]:
        raise SourceMissing(
            f"{root} should hold {len(expected)} .tfrecords files and lacks {few(missing)}; copy "
            "them from where the dataset was converted"
        )
    if extra := sorted(present - expected):
        raise IntegrityError(
            f"{root} holds {few(extra)} beside the {len(expected)} classes of its {SPEC}; move "
            "them away, or bring the spec that they belong to"
        )


def _check_label(path: Path, span: tuple[int, int], class_id: int) -> None:
    """A file of another class is found before anything is built, by one of its records."""
    with path.open("rb") as file:
        file.seek(span[0])
        framed = file.read(span[1] + FOOTER.size)
    try:
        data = checked_data(framed, path.name)
    except IntegrityError:
        return  # one damaged picture, rejected when its turn comes
    try:
        _picture(data, class_id)
    except IntegrityError as error:
        raise IntegrityError(
            f"{path}: first record: {error}; its name or {SPEC} is another dataset's"
        ) from error


def _picture(data: memoryview, class_id: int) -> bytes:
    match parse_example(data):
        case {"image": [bytes(image)], "label": [int(label)]}:
            if label != class_id:
                raise IntegrityError(f"the label should be the file's, {class_id}, and is {label}")
            return image
        case features:
            found = ", ".join(f"{name!r} ({len(values)})" for name, values in features.items())
            raise IntegrityError(f"one 'image' and one 'label' are needed; found {found or 'none'}")
