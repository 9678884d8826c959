"""F10: archives whose members name, or link to, what lies outside them: nothing is written or read there."""

from __future__ import annotations

import gzip
import io
import random
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.build.builder import Run, build_shards
from pipeline.errors import PipelineError, first_few
from pipeline.index import Dataset
from pipeline.records import Encoding, Recipe
from pipeline.sources.folder import FolderSource
from tests.faults.rows import FaultRow
from tests.images import jpeg_bytes, tree_hashes

SHORT = 12
LONG = 400
SEED: Final = 10
SUFFIXES: Final = (".tar", ".tgz", ".zip")
LINKS: Final = (tarfile.SYMTYPE, tarfile.LNKTYPE)
DEVICES: Final = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
RECIPE: Final = Recipe(sizes=(8,), encodings=(Encoding.parse("raw"),))


class HostileMember(NamedTuple):
    """A member that must not be followed: a bad name, or a link or device under a good one."""

    name: str
    kind: bytes = tarfile.REGTYPE
    target: str = ""


def run(points: int, folder: Path) -> FaultRow:
    """Build one archive for each point, with a picture outside it that a bad name or link would reach."""
    failures = [
        f"point {point}: {problem}"
        for point in range(points)
        if (problem := _build_one(random.Random(SEED * 10**6 + point), folder / str(point)))
    ]
    figure = f"{points - len(failures)} of {points} archives: no file outside written, changed or read"
    if failures:
        figure += f"; {first_few(failures, '; ')}"
    return FaultRow(points, len(failures), figure)


def _build_one(draw: random.Random, folder: Path) -> str:
    """What went wrong with one archive; "" if nothing did."""
    outside, work = folder / "outside", folder / "work"
    for path in (outside / "cat" / "secret.jpg", work / "near.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg_bytes(99))
    members = [_hostile_member(draw, outside) for _ in range(draw.randint(1, 5))]
    archive = work / f"a{draw.choice(SUFFIXES)}"
    archive.write_bytes(_archive_bytes(draw, archive.suffix, members))
    before = tree_hashes(folder)
    try:
        build_shards(FolderSource(root=archive), work / "out", RECIPE, Run(workers=1))
    except PipelineError as error:
        return f"the good members were lost: {error}"
    manifest = Dataset.open(work / "out").manifest
    shutil.rmtree(work / "out")
    if tree_hashes(folder) != before or any((work / member.name).exists() for member in members):
        return "a file outside the output was written or changed"
    if manifest.samples != 2:
        return f"{manifest.samples} pictures from 2 good members"
    if len(manifest.quarantined) != len(members):
        return f"{len(manifest.quarantined)} listed of {len(members)} hostile members"
    shutil.rmtree(folder)
    return ""


def _hostile_member(draw: random.Random, outside: Path) -> HostileMember:
    picture = outside / "cat" / "secret.jpg"
    if draw.random() < 0.5:
        kind = draw.choice((*LINKS, *DEVICES))
        target = draw.choice((str(picture), "../outside/cat/secret.jpg", "../../near.jpg", "/etc/passwd"))
        return HostileMember(f"cat/{draw.randrange(10**9)}.jpg", kind, target)
    up = "../" * draw.randint(1, 8)
    name = f"{draw.randrange(10**9)}.jpg"
    names = (f"{up}{name}", f"cat/{up}{name}", f"{outside}/{name}", f"/tmp/{name}", f"C:\\cat\\{name}",
             f"..\\..\\{name}", f"cat\\..\\..\\{name}", f"cat/..\\../{name}")  # fmt: skip
    return HostileMember(draw.choice(names))


def _archive_bytes(draw: random.Random, suffix: str, members: list[HostileMember]) -> bytes:
    """An archive of two good members and the hostile ones, in any order."""
    good = [HostileMember("cat/1.jpg"), HostileMember("dog/1.jpg")]
    mixed = draw.sample([*good, *members], len(good) + len(members))
    if suffix == ".zip":
        return _zip_bytes(mixed)
    data = _tar_bytes(mixed, draw.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)))
    return gzip.compress(data, mtime=0) if suffix == ".tgz" else data


def _tar_bytes(members: list[HostileMember], layout: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as archive:
        for number, member in enumerate(members):
            info = tarfile.TarInfo(member.name)
            info.type, info.linkname = member.kind, member.target
            data = b"" if member.target else jpeg_bytes(number)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _zip_bytes(members: list[HostileMember]) -> bytes:
    """A zip, which has symbolic links and no other members that are no files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, member in enumerate(members):
            info = zipfile.ZipInfo(member.name)
            if member.target:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, member.target or jpeg_bytes(number))
    return buffer.getvalue()
