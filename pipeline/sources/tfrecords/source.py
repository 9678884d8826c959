"""Datasets that Meta-Dataset's own tools have converted: dataset_spec.json and one TFRecord per class.

The survey reads only the twelve bytes in front of each record. The checksum and the label of a record
are verified when its image is read, so that every byte is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import IntegrityError, SourceMissing, first_few
from pipeline.records import Item, Pixels, Rejected, Survey
from pipeline.sources.archives import source_file
from pipeline.sources.base import Source
from pipeline.sources.spans import FileSpan, SpanReader
from pipeline.sources.tfrecords.framing import RECORD_FOOTER, check_record, parse_example, read_records
from pipeline.sources.tfrecords.spec import FILE_PATTERN, PICKLED_SPEC_FILE, SPEC_FILE, DatasetSpec, read_spec


@dataclass(frozen=True, kw_only=True)
class MetaRecordsSource(Source):
    """One converted dataset; `root` is its folder, and an item is one record."""

    def survey(self) -> Survey:
        """List the spec's classes; the number of files, and of records in each, must be what it says."""
        spec = read_spec(self.root / SPEC_FILE)
        _check_folder_name(self.root, spec.name)
        names = [SPEC_FILE, *(FILE_PATTERN.format(number) for number in range(len(spec.classes)))]
        _check_files(self.root, names)
        return Survey(
            classes=spec.classes,
            items=self._items(spec),
            files=tuple(source_file(self.root / name) for name in names),
            hierarchy=spec.hierarchy,
        )

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """Yield the encoded images of records; a wrong checksum or label makes a Rejected."""
        framed = [item._replace(length=item.length + RECORD_FOOTER.size) for item in items]
        for item, record in zip(items, super().pictures(framed), strict=True):
            if not isinstance(record, bytes):
                yield record
                continue
            try:
                yield _example_image(check_record(record, item.name), item.class_id)
            except IntegrityError as error:
                yield Rejected(item.name, str(error))

    def _items(self, spec: DatasetSpec) -> Iterator[Item]:
        for number, (record, count) in enumerate(zip(spec.classes, spec.images, strict=True)):
            name = FILE_PATTERN.format(number)
            spans = list(read_records(self.root / name))
            if len(spans) != count:
                raise IntegrityError(
                    f"{self.root / name} holds {len(spans):,} records and {SPEC_FILE} says {count:,}; "
                    "copy the file again, or convert the dataset again"
                )
            for span in spans[:1]:
                _check_label(self.root / name, span, number)
            for position, span in enumerate(spans):
                yield Item(f"{name}:{position}", number, record.split, name, *span)


def is_converted(folder: Path) -> bool:
    """Whether a folder holds a converted dataset; a pickled spec counts, and `read_spec` refuses it."""
    return (folder / SPEC_FILE).is_file() or (folder / PICKLED_SPEC_FILE).is_file()


def _check_folder_name(root: Path, name: str) -> None:
    # An error, not a warning: specs are edited and copied by hand, and in ImageNet's two versions the
    # same classes have other file names. Meta-Dataset's own readers require this too.
    if name not in (root.absolute().name, root.resolve().name):
        raise IntegrityError(
            f"{root / SPEC_FILE} is that of {name!r}; if the records are too, rename their folder to "
            f"{name!r}, else put the right {SPEC_FILE} there"
        )


def _check_files(root: Path, names: Sequence[str]) -> None:
    present = {path.name for path in root.glob(FILE_PATTERN.format("*")) if path.is_file()}
    expected = set(names) - {SPEC_FILE}
    if missing := [name for name in names[1:] if name not in present]:
        raise SourceMissing(
            f"{root} should hold {len(expected)} .tfrecords files and lacks {first_few(missing)}; copy "
            "them from where the dataset was converted"
        )
    if extra := sorted(present - expected):
        raise IntegrityError(
            f"{root} holds {first_few(extra)} beside the {len(expected)} classes of its {SPEC_FILE}; move "
            "them away, or bring the spec that they belong to"
        )


def _check_label(path: Path, span: tuple[int, int], class_id: int) -> None:
    """Read one record of a file, so that a file of another class is found before anything is built."""
    place = FileSpan(path.name, span[0], span[1] + RECORD_FOOTER.size)
    try:
        with SpanReader(path.parent) as reader:
            data = check_record(reader.read_span(place), path.name)
    except IntegrityError:
        return  # one damaged image, rejected when it is read
    try:
        _example_image(data, class_id)
    except IntegrityError as error:
        raise IntegrityError(
            f"{path}: first record: {error}; its name or {SPEC_FILE} is another dataset's"
        ) from error


def _example_image(data: memoryview, class_id: int) -> bytes:
    match parse_example(data):
        case {"image": [bytes(image)], "label": [int(label)]}:
            if label != class_id:
                raise IntegrityError(f"the label should be the file's, {class_id}, and is {label}")
            return image
        case features:
            actual = ", ".join(f"{name!r} ({len(values)})" for name, values in features.items())
            raise IntegrityError(f"one 'image' and one 'label' are needed; found {actual or 'none'}")
