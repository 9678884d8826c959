"""F12: pickled members of foreign tars are refused with a message, and nothing of them is executed."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.build.builder import Run, build_shards
from pipeline.build.writer import TAR_BLOCK, member_header
from pipeline.errors import IntegrityError
from pipeline.index import Dataset, DatasetManifest
from pipeline.loader.loader import EpisodeLoader
from pipeline.records import Recipe
from pipeline.shardset import ShardSet
from pipeline.show.stored_images import read_images
from pipeline.sources.folder import FolderSource
from pipeline.store.local import LocalStore
from pipeline.verify.__main__ import verify
from pipeline.verify.tars import BYTES_BEFORE_IMAGE
from tests.episodes import PlanSampler, plan_of_rows
from tests.faults.builds import row
from tests.faults.damage import ENCODINGS, build_zoo
from tests.faults.rows import FaultRow
from tests.images import jpeg_bytes

EXTENSIONS: Final = (
    "pkl",
    "pickle",
    "pyd",
    "pth",
    "pt",
    "joblib",
    "dill",
    "npy",
    "npz",
    "jpg",
    "png",
    "cls",
    "json",
)
SHORT: Final = 12
LONG: Final = 4 * len(EXTENSIONS)


class MarkMaker:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self._mark}'",)


class HostileSet(NamedTuple):
    """A whole shard set to copy, what to hide in it, and the file that an execution would leave."""

    whole: Path
    payload: bytes
    array: bytes
    """A .npy file of objects."""
    mark: Path


def run(points: int, folder: Path) -> FaultRow:
    """Hide a payload behind each extension: in a source, as a member and as an image of a shard."""
    mark = folder / "executed"
    array = io.BytesIO()
    np.save(array, np.array([MarkMaker(mark)], object), allow_pickle=True)
    hostile = HostileSet(build_zoo(folder), pickle.dumps(MarkMaker(mark)), array.getvalue(), mark)
    problems, tried = [], 0
    for number, (where, problem) in zip(range(points), _attempts(hostile, folder), strict=False):
        tried = number + 1
        problems += [f"{where}: {problem}"] if problem else []
        problems += [f"{where}: executed"] if mark.exists() else []
        mark.unlink(missing_ok=True)
    return row(tried, problems, f"{tried} pickles in sources and shards, 0 executed")


def _attempts(hostile: HostileSet, folder: Path) -> Iterator[tuple[str, str]]:
    """What was tried, and what was wrong."""
    for number, extension in enumerate(EXTENSIONS):
        payload = hostile.array if extension == "npy" else hostile.payload
        for attempt in (_as_source, _as_member, _as_added_member, _as_image):
            work = folder / f"{number}-{attempt.__name__}"
            yield f"{extension}{attempt.__name__}", attempt(hostile, work, payload, extension)
            shutil.rmtree(work)


def _as_source(_: HostileSet, work: Path, payload: bytes, extension: str) -> str:
    """An archive of pictures that holds one: the build names it and goes on."""
    work.mkdir()
    with tarfile.open(work / "source.tar", "w") as archive:
        for name, data in (("cat/good.jpg", jpeg_bytes(1)), (f"cat/bad.{extension}", payload)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    source = FolderSource(name="zoo", root=work / "source.tar")
    report = build_shards(source, work / "out", Recipe(sizes=(24,)), Run(workers=1))
    named = [entry.name for entry in report.rejected]
    return "" if named == [f"cat/bad.{extension}"] else f"left out is {named}"


def _as_member(hostile: HostileSet, work: Path, payload: bytes, extension: str) -> str:
    """A shard whose first image has another name, and the payload for its contents."""
    root = Path(shutil.copytree(hostile.whole, work, ignore=shutil.ignore_patterns(".build")))
    data = (root / "84" / "shard-000000.tar").read_bytes()
    start = BYTES_BEFORE_IMAGE
    header = member_header(f"000000000.{extension}", len(payload))
    return _verified(root, data[: start - TAR_BLOCK] + header + payload + data[start + len(payload) :])


def _as_added_member(hostile: HostileSet, work: Path, payload: bytes, extension: str) -> str:
    """A shard with one more member at its end."""
    root = Path(shutil.copytree(hostile.whole, work, ignore=shutil.ignore_patterns(".build")))
    tar = root / "84" / "shard-000000.tar"
    with tarfile.open(tar, "a") as archive:
        member = tarfile.TarInfo(f"000000001.{extension}")
        member.size = len(payload)
        archive.addfile(member, io.BytesIO(payload))
    return _verified(root, tar.read_bytes())


def _verified(root: Path, data: bytes) -> str:
    """Write a shard and its checksum; what is wrong with the report of verify."""
    (root / "84" / "shard-000000.tar").write_bytes(data)
    manifest = DatasetManifest.read(root / "dataset.json")
    first = replace(manifest.shards[84][0], bytes=len(data), sha256=sha256(data).hexdigest())
    shards = {**manifest.shards, 84: (first, *manifest.shards[84][1:])}
    (root / "dataset.json").write_text(replace(manifest, shards=shards).text())
    return "verify finds nothing" if verify(root, workers=1).ok else ""


def _streams(root: Path, size: int) -> bool:
    """Whether the loader takes the first image."""
    sampler = PlanSampler([plan_of_rows("zoo", [0], [0])])
    with EpisodeLoader(ShardSet.open(root), sampler, image_size=size, h=0, threads=1) as loader:
        try:
            return len(next(iter(loader)).support.images) > 0
        except IntegrityError:
            return False


def _as_image(hostile: HostileSet, work: Path, payload: bytes, extension: str) -> str:
    """A payload in an image's place, with the image's checksums, for who shows the set."""
    del extension
    root = Path(shutil.copytree(hostile.whole, work, ignore=shutil.ignore_patterns(".build")))
    table, problems = pq.read_table(root / "index.parquet"), []
    for size in ENCODINGS:
        offset, length = (table[f"{name}_{size}"][0].as_py() for name in ("offset", "length"))
        tar = root / str(size) / f"shard-{table['shard'][0].as_py():06d}.tar"
        image = payload.ljust(length, b"\0")[:length]
        with tar.open("r+b") as file:
            file.seek(offset)
            file.write(image)
        name = f"crc32_{size}"
        sums = pa.array([zlib.crc32(image), *table[name].to_pylist()[1:]], pa.uint32())
        table = table.set_column(table.column_names.index(name), name, sums)
    pq.write_table(table, root / "index.parquet")
    digest = sha256((root / "index.parquet").read_bytes()).hexdigest()
    manifest = replace(DatasetManifest.read(root / "dataset.json"), index_sha256=digest)
    (root / "dataset.json").write_text(manifest.text())
    with closing(LocalStore()) as store:
        for size in ENCODINGS:
            try:
                list(read_images(store, Dataset.open(root), size, [0]))
                problems.append(f"was shown at {size} px")
            except IntegrityError as error:
                problems += [] if "cannot be decoded" in str(error) else [str(error)]
            problems += [f"was streamed at {size} px"] if _streams(root, size) else []
    return ", ".join(problems)
