"""One shard, from the plan's rows to the commit record: a pure function of (plan, shard number).

The commit record is written last. Where it is, the shard's tars are complete and durable; where it
is not, the shard is built again. So a job may be killed, repeated or run twice at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.build.images import pictures, versions
from pipeline.build.plan import PARQUET, PlannedShard, read_shard
from pipeline.build.writer import Place, ShardWriter
from pipeline.constants import QUALITY
from pipeline.errors import IntegrityError
from pipeline.layout import Layout, key_text, whole_file
from pipeline.records import Box, Item, Recipe, Rejected, ShardFile, rescaled_box
from pipeline.sources.base import Source

NO_BOX: Final = (-1, -1, -1, -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All that a worker needs besides the number of its shard."""

    source: Source
    recipe: Recipe
    out: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What a finished shard reports for the progress line."""

    shard: int
    samples: int
    rejected: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """What a finished shard leaves for `finalize`."""

    plan_hash: str
    files: Mapping[int, ShardFile]
    rejected: tuple[Rejected, ...]
    versions: Mapping[str, str]
    places: pa.Table
    """key, and offset_S, length_S, crc32_S of the picture at each size S."""


def build_shard(job: Job, shard: int) -> Done:
    """Read, decode, resize, encode, write and commit one shard."""
    layout = Layout(job.out)
    planned = read_shard(layout.plan, shard)
    rejected: list[Rejected] = []
    rows: list[tuple[int, list[Place]]] = []
    with ExitStack() as stack:
        writers = [
            stack.enter_context(ShardWriter(layout.tar(size, shard))) for size in job.recipe.sizes
        ]
        for key, item, encoded in _encoded(job, planned, rejected):
            texts = _texts(item, planned.class_names[item.class_id], job.recipe)
            places = [
                writer.add(
                    key_text(key),
                    _members(item, data, encoding.extension, text),
                    encoding.extension,
                )
                for writer, data, encoding, text in zip(
                    writers, encoded, job.recipe.encodings, texts, strict=True
                )
            ]
            rows.append((key, places))
        files = [writer.commit() for writer in writers]
    about: dict[str, object] = {
        "plan": planned.plan_hash,
        "files": {
            str(size): asdict(file)
            for size, file in zip(job.recipe.sizes, files, strict=True)
            if file is not None
        },
        "rejected": rejected,
        "versions": versions() | job.source.libraries(planned.items),
    }
    _commit(layout.commit(shard), rows, job.recipe, about)
    total = sum(file.bytes for file in files if file is not None)
    return Done(shard=shard, samples=len(rows), rejected=len(rejected), bytes=total)


def _encoded(
    job: Job, planned: PlannedShard, rejected: list[Rejected]
) -> Iterator[tuple[int, Item, list[bytes]]]:
    found = job.source.pictures(planned.items)
    for key, item, pixels in zip(
        range(planned.first_key, planned.first_key + len(planned.items)),
        planned.items,
        found,
        strict=True,
    ):
        if isinstance(pixels, Rejected):
            rejected.append(pixels)
            continue
        try:
            yield key, item, pictures(pixels, item, job.recipe)
        except IntegrityError as error:
            rejected.append(Rejected(item.name, str(error)))
        except BaseException as error:
            if hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(f"while building {item.name}")
            raise


def _members(item: Item, data: bytes, extension: str, text: bytes) -> list[tuple[str, bytes]]:
    return [("cls", b"%d" % item.class_id), (extension, data), ("json", text)]


def _texts(item: Item, class_name: str, recipe: Recipe) -> list[bytes]:
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
    about |= dict(zip(QUALITY, item.quality or (-1,) * len(QUALITY), strict=True))
    boxes: list[Box] = [
        NO_BOX if item.box is None else rescaled_box(item.box, size) for size in recipe.sizes
    ]
    return [json.dumps(about | {"box": box}).encode() for box in boxes]


def _commit(
    path: Path, rows: list[tuple[int, list[Place]]], recipe: Recipe, about: dict[str, object]
) -> None:
    columns: dict[str, pa.Array] = {"key": pa.array([key for key, _ in rows], pa.int64())}
    for position, size in enumerate(recipe.sizes):
        places = [place[position] for _, place in rows]
        columns[f"offset_{size}"] = pa.array([place.offset for place in places], pa.int64())
        columns[f"length_{size}"] = pa.array([place.length for place in places], pa.int32())
        columns[f"crc32_{size}"] = pa.array([place.crc32 for place in places], pa.uint32())
    table = pa.table(columns).replace_schema_metadata({"about": json.dumps(about, sort_keys=True)})
    with whole_file(path) as sink:
        pq.write_table(table, sink, **PARQUET)


def is_done(job: Job, shard: int) -> bool:
    """Whether the shard's commit record and the files it names are there."""
    layout = Layout(job.out)
    if not layout.commit(shard).exists():
        return False
    commit = read_commit(layout.commit(shard))
    return all(
        (tar := layout.tar(size, shard)).exists()
        and tar.stat().st_size == file.bytes
        and tar.with_suffix(".idx").exists()
        for size, file in commit.files.items()
    )


def read_commit(path: Path) -> Commit:
    """A shard's commit record."""
    table = pq.read_table(path, page_checksum_verification=True, memory_map=False)
    about = json.loads(table.schema.metadata[b"about"])
    return Commit(
        plan_hash=about["plan"],
        files={int(size): ShardFile(**file) for size, file in about["files"].items()},
        rejected=tuple(Rejected(*entry) for entry in about["rejected"]),
        versions=about["versions"],
        places=table.replace_schema_metadata(None),
    )
