"""Builds of sources that are odd or change meanwhile: whole, with a list of what is left out, or refused."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.build import builder, engines
from pipeline.build.builder import Report, Run, build_shards
from pipeline.build.jobs import ShardJob, ShardResult, build_shard
from pipeline.errors import IntegrityError, UsageError
from pipeline.index import Dataset
from pipeline.records import Encoding, Item, Pixels, Recipe, Rejected
from pipeline.sources.folder import FolderSource
from tests.images import fill_class_folders, jpeg_bytes

LATIN = os.fsdecode(b"caf\xe9")
RECIPE = Recipe(sizes=(8,), encodings=(Encoding.parse("raw"),), shard_samples=2)


def build(source: Path, out: Path) -> Report:
    return build_shards(FolderSource(root=source), out, RECIPE, Run(workers=1))


def left_out(out: Path) -> list[str]:
    return [entry.name for entry in Dataset.open(out).manifest.quarantined]


def test_a_folder_of_odd_names_is_built_whole(tmp_path: Path) -> None:
    pets = fill_class_folders(tmp_path / "pets", {"@home": 1, LATIN: 1, "dog": 1})
    (pets / "dog" / f"{LATIN}.jpg").write_bytes((pets / "dog" / "000.jpg").read_bytes())
    (pets / f"{LATIN}.txt").touch()
    for _ in range(2):
        build(pets, tmp_path / "out")
    manifest = Dataset.open(tmp_path / "out").manifest
    assert [record.name for record in manifest.classes] == ["@home", "caf\\xe9", "dog"]
    assert manifest.samples == 4
    assert left_out(tmp_path / "out") == ["caf\\xe9.txt"]


def test_a_tar_of_latin_1_names_is_built_whole_and_its_links_are_listed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as archive:
        for name in ("a/1.jpg", "a/\xe9.jpg", "\xe9/1.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(jpeg_bytes(1))
            archive.addfile(info, io.BytesIO(jpeg_bytes(1)))
        link = tarfile.TarInfo("a/\xe8.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "1.jpg"
        archive.addfile(link)
    build(tmp_path / "a.tar", tmp_path / "out")
    assert Dataset.open(tmp_path / "out").manifest.samples == 3
    assert left_out(tmp_path / "out") == ["a/\\xe8.jpg"]


@dataclass(frozen=True, kw_only=True)
class StrangeReasons(FolderSource):
    """Rejects an image with a reason that holds what is no UTF-8."""

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        for item, pixels in zip(items, super().pictures(items), strict=True):
            yield Rejected(item.name, f"not {LATIN}") if item.name.endswith("000.jpg") else pixels


def test_a_reason_that_is_no_utf_8_does_not_keep_the_manifest_from_being_written(tmp_path: Path) -> None:
    pets = fill_class_folders(tmp_path / "pets", {"cat": 2})
    build_shards(StrangeReasons(root=pets), tmp_path / "out", RECIPE, Run(workers=1))
    assert Dataset.open(tmp_path / "out").manifest.quarantined == (Rejected("cat/000.jpg", "not caf\\xe9"),)


def test_images_that_change_after_a_kill_or_a_finished_build_are_not_taken_for_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pets = fill_class_folders(tmp_path / "pets", {"cat": 6})

    def stopped_after_one(job: ShardJob, shard: int) -> ShardResult:
        if shard:
            raise KeyboardInterrupt
        return build_shard(job, shard)

    with monkeypatch.context() as patch:
        patch.setattr(engines, "build_shard", stopped_after_one)
        with pytest.raises(KeyboardInterrupt):
            build(pets, tmp_path / "out")
    old = {path: path.read_bytes() for path in pets.rglob("*.jpg")}
    for finished in (False, True):
        for path, data in old.items():
            path.write_bytes(data + b"more")
        with pytest.raises(UsageError, match=r"6 files of the source have other sizes than when .*cat/00"):
            build(pets, tmp_path / "out")
        for path, data in old.items():
            path.write_bytes(data)
        assert build(pets, tmp_path / "out").built == (0 if finished else 2)


def test_an_archive_downloaded_again_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tar_of(value: int) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo("a/1.jpg")
            info.size = len(jpeg_bytes(value))
            archive.addfile(info, io.BytesIO(jpeg_bytes(value)))
        return buffer.getvalue()

    archive = tmp_path / "a.tgz"
    archive.write_bytes(gzip.compress(tar_of(1)[:700]))
    with pytest.raises(IntegrityError, match="download it again"):
        build(archive, tmp_path / "out")
    with monkeypatch.context() as patch:  # a build that is killed before its plan is written
        patch.setattr(builder, "_store_plan", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        archive.write_bytes(gzip.compress(tar_of(2)))
        with pytest.raises(KeyboardInterrupt):
            build(archive, tmp_path / "out")
    archive.write_bytes(gzip.compress(tar_of(3)))
    build(archive, tmp_path / "out")
    (tmp_path / "pets" / "a").mkdir(parents=True)
    (tmp_path / "pets" / "a" / "1.jpg").write_bytes(jpeg_bytes(3))
    build(tmp_path / "pets", tmp_path / "expected")
    same = [folder / "8" / "shard-000000.tar" for folder in (tmp_path / "out", tmp_path / "expected")]
    assert same[0].read_bytes() == same[1].read_bytes()
