"""Build one shard, from the plan's rows to the commit record: a pure function of (plan, shard number).

The commit record is written last. If it is there, the shard's tars are complete and durable; if not,
the shard is built again. So a job may be killed, repeated or run twice at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.build.images import encode_sizes, library_versions
from pipeline.build.plan import PARQUET_OPTIONS, PlannedShard, read_about, read_shard
from pipeline.build.writer import MemberLocation, ShardWriter
from pipeline.constants import QUALITY_ISSUES
from pipeline.errors import IntegrityError, errors_about
from pipeline.layout import DatasetLayout, atomic_file, key_text
from pipeline.records import Box, Item, Recipe, Rejected, ShardFile, rescale_box
from pipeline.settings import typed
from pipeline.sources.base import Source

NO_BOX: Final = (-1, -1, -1, -1)
SampleRow: TypeAlias = tuple[int, list[MemberLocation]]
"""The key of a sample, and where its image of each size is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardJob:
    """Everything that a worker needs besides a shard's number."""

    source: Source
    recipe: Recipe
    out: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardResult:
    """The counts of a finished shard, for the progress line."""

    shard: int
    samples: int
    bad: int
    """Images that were left out, and damaged ones that were not."""
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitRecord:
    """The record of a finished shard, for `finalize`."""

    plan_hash: str
    files: Mapping[int, ShardFile]
    rejected: tuple[Rejected, ...]
    damaged: tuple[Rejected, ...]
    """Images that were built although their files are damaged, and how."""
    versions: Mapping[str, str]
    locations: pa.Table
    """key, and offset_S, length_S, crc32_S of the image at each size S."""


@dataclass(frozen=True, slots=True)
class ImageProblems:
    """What was found wrong with images while a shard was built."""

    rejected: list[Rejected] = field(default_factory=list)
    damaged: list[Rejected] = field(default_factory=list)
    """Built all the same: their files could be decoded, with gaps."""

    def described(self) -> dict[str, object]:
        """The problems for the commit record, which says nothing of damage where there is none."""
        rejected = [entry.printable() for entry in self.rejected]
        damaged = [entry.printable() for entry in self.damaged]
        return {"rejected": rejected, **({"damaged": damaged} if damaged else {})}


def build_shard(job: ShardJob, shard: int) -> ShardResult:
    """Read, decode, resize, encode, write and commit one shard."""
    layout = DatasetLayout(job.out)
    planned = read_shard(layout.plan, shard)
    problems = ImageProblems()
    rows: list[SampleRow] = []
    with ExitStack() as stack:
        writers = [stack.enter_context(ShardWriter(layout.tar(size, shard))) for size in job.recipe.sizes]
        for key, item, encoded in _encode_items(job, planned, problems):
            texts = _json_members(item, planned.class_names[item.class_id], job.recipe)
            locations = [
                writer.add(key_text(key), _members(item, data, encoding.extension, text), encoding.extension)
                for writer, data, encoding, text in zip(
                    writers, encoded, job.recipe.encodings, texts, strict=True
                )
            ]
            rows.append((key, locations))
        files = [writer.commit() for writer in writers]
    about: dict[str, object] = {
        "plan": planned.plan_hash,
        "files": {
            str(size): asdict(file)
            for size, file in zip(job.recipe.sizes, files, strict=True)
            if file is not None
        },
        **problems.described(),
        "versions": library_versions() | job.source.libraries(planned.items),
    }
    _write_commit(layout.commit(shard), rows, job.recipe, about)
    total = sum(file.bytes for file in files if file is not None)
    bad = len(problems.rejected) + len(problems.damaged)
    return ShardResult(shard=shard, samples=len(rows), bad=bad, bytes=total)


def _encode_items(
    job: ShardJob, planned: PlannedShard, problems: ImageProblems
) -> Iterator[tuple[int, Item, list[bytes]]]:
    """Each image that can be built: its key, item and encoded bytes; the others go to `problems`."""
    images = job.source.pictures(planned.items)
    for key, item, pixels in zip(
        range(planned.first_key, planned.first_key + len(planned.items)), planned.items, images, strict=True
    ):
        if isinstance(pixels, Rejected):
            problems.rejected.append(pixels)
            continue
        try:
            encoded = encode_sizes(pixels, item, job.recipe)
        except IntegrityError as error:
            problems.rejected.append(Rejected(item.name, str(error)))
        except BaseException as error:
            if hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(f"while building {item.name}")
            raise
        else:
            if encoded.damage:
                problems.damaged.append(Rejected(item.name, encoded.damage))
            yield key, item, encoded.sizes


def _members(item: Item, data: bytes, extension: str, text: bytes) -> list[tuple[str, bytes]]:
    return [("cls", b"%d" % item.class_id), (extension, data), ("json", text)]


def _json_members(item: Item, class_name: str, recipe: Recipe) -> list[bytes]:
    """The json member for each size: the same keys and types in every sample, and no nulls."""
    about = {
        "name": item.name,
        "class_name": class_name,
        "class_id": item.class_id,
        "split": item.split,
        "group": item.group,
        "user": item.user,
        "kind": item.kind,
        "frame": item.frame,
    }
    if not item.quality and item.box is None and not item.kind:
        text = json.dumps(about).encode()
        return [text for _ in recipe.sizes]
    about |= dict(zip(QUALITY_ISSUES, item.quality or (-1,) * len(QUALITY_ISSUES), strict=True))
    boxes: list[Box] = [NO_BOX if item.box is None else rescale_box(item.box, size) for size in recipe.sizes]
    return [json.dumps(about | {"box": box}).encode() for box in boxes]


def _write_commit(path: Path, rows: list[SampleRow], recipe: Recipe, about: dict[str, object]) -> None:
    columns: dict[str, pa.Array] = {"key": pa.array([key for key, _ in rows], pa.int64())}
    for position, size in enumerate(recipe.sizes):
        locations = [per_size[position] for _, per_size in rows]
        columns[f"offset_{size}"] = pa.array([at.offset for at in locations], pa.int64())
        columns[f"length_{size}"] = pa.array([at.length for at in locations], pa.int32())
        columns[f"crc32_{size}"] = pa.array([at.crc32 for at in locations], pa.uint32())
    table = pa.table(columns).replace_schema_metadata({"about": json.dumps(about, sort_keys=True)})
    with atomic_file(path) as sink:
        pq.write_table(table, sink, **PARQUET_OPTIONS)


def is_done(job: ShardJob, shard: int) -> bool:
    """Whether the shard's commit record and the files it names are there."""
    layout = DatasetLayout(job.out)
    if not layout.commit(shard).exists():
        return False
    commit = read_commit(layout.commit(shard))
    return all(
        (tar := layout.tar(size, shard)).exists()
        and tar.stat().st_size == file.bytes
        and tar.with_suffix(".idx").exists()
        for size, file in commit.files.items()
    )


def read_commit(path: Path) -> CommitRecord:
    """Read a shard's commit record. Raises IntegrityError that names a wrong field."""
    with errors_about(path):
        table = pq.read_table(path, page_checksum_verification=True, memory_map=False)
    about = read_about(table.schema, path)
    return CommitRecord(
        plan_hash=typed(about.get("plan"), str, f"{path}, plan"),
        files=typed(about.get("files"), dict[int, ShardFile], f"{path}, files"),
        rejected=typed(about.get("rejected"), tuple[Rejected, ...], f"{path}, rejected"),
        damaged=typed(about.get("damaged", []), tuple[Rejected, ...], f"{path}, damaged"),
        versions=typed(about.get("versions"), dict[str, str], f"{path}, versions"),
        locations=table.replace_schema_metadata(None),
    )
