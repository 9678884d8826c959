"""Same input, same bytes: for any workers, resumes and bad images; and nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.build.builder import Run, build_shards
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.index import Dataset
from pipeline.layout import make_folder, temporary_path
from pipeline.records import ClassRecord, Encoding, Item, Pixels, Recipe, Rejected, Survey
from pipeline.sources.base import Source
from pipeline.sources.folder import FolderSource
from tests.images import fill_class_folders, jpeg_bytes, tree_hashes

RECIPE = Recipe(sizes=(16,), encodings=(Encoding.parse("jpeg:90"),), shard_samples=4)


def pets(photos: Path) -> FolderSource:
    return FolderSource(name="pets", root=photos)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_gives_the_same_bytes(workers: int, photos: Path, tmp_path: Path) -> None:
    build_shards(pets(photos), tmp_path / "one", RECIPE, Run(workers=1))
    build_shards(pets(photos), tmp_path / "many", RECIPE, Run(workers=workers))
    assert tree_hashes(tmp_path / "many") == tree_hashes(tmp_path / "one")


def test_array_tasks_in_any_order_give_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    build_shards(pets(photos), tmp_path / "one", RECIPE)
    for task in (2, 0, 0, 1):
        report = build_shards(pets(photos), tmp_path / "parts", RECIPE, Run(workers=1, task=task, tasks=3))
        assert (report.manifest is not None) == (task == 1)
    assert tree_hashes(tmp_path / "parts") == tree_hashes(tmp_path / "one")


def test_a_finished_shard_is_not_built_again(photos: Path, tmp_path: Path) -> None:
    report = build_shards(pets(photos), tmp_path / "out", RECIPE)
    assert report.built == 4
    (tmp_path / "out" / "dataset.json").unlink()
    (tmp_path / "out" / "16" / "shard-000002.tar").unlink()
    before = (tmp_path / "out" / "16" / "shard-000001.tar").stat().st_mtime_ns
    assert build_shards(pets(photos), tmp_path / "out", RECIPE).built == 1
    assert (tmp_path / "out" / "16" / "shard-000001.tar").stat().st_mtime_ns == before
    assert build_shards(pets(photos), tmp_path / "out", RECIPE).built == 0


def test_bad_images_are_left_out_listed_and_counted(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "000.jpg").write_bytes(b"")
    (photos / "cat" / "001.jpg").write_bytes(b"no picture")
    (photos / "dog" / "000.jpg").write_bytes(jpeg_bytes(9, 100, 100)[:900])
    report = build_shards(pets(photos), tmp_path / "out", RECIPE, Run(workers=2))
    manifest = Dataset.open(tmp_path / "out").manifest
    assert manifest.samples == 10
    assert sorted(entry.name for entry in manifest.quarantined) == [
        "cat/000.jpg", "cat/001.jpg", "dog/000.jpg",
    ]  # fmt: skip
    assert report.rejected == manifest.quarantined


HALF_AND_AN_END = jpeg_bytes(9, 300, 300)[:2000] + b"\xff\xd9"


def test_an_image_of_a_damaged_file_is_built_and_listed(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "000.jpg").write_bytes(HALF_AND_AN_END)
    report = build_shards(pets(photos), tmp_path / "out", RECIPE, Run(workers=2))
    manifest = Dataset.open(tmp_path / "out").manifest
    assert (manifest.samples, manifest.quarantined) == (13, ())
    (damaged,) = manifest.damaged
    assert damaged.name == "cat/000.jpg"
    assert "premature end of data segment" in damaged.reason
    assert report.damaged == build_shards(pets(photos), tmp_path / "out", RECIPE).damaged == manifest.damaged


def test_a_manifest_without_damaged_images_does_not_speak_of_them(photos: Path, tmp_path: Path) -> None:
    build_shards(pets(photos), tmp_path / "out", RECIPE)
    assert "damaged" not in (tmp_path / "out" / "dataset.json").read_text()
    assert Dataset.open(tmp_path / "out").manifest.damaged == ()


def test_strict_makes_a_damaged_image_an_error_too(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "000.jpg").write_bytes(HALF_AND_AN_END)
    with pytest.raises(IntegrityError, match=r"--strict: 1 .* are damaged: cat/000.jpg \(Corrupt JPEG data"):
        build_shards(pets(photos), tmp_path / "out", RECIPE, Run(strict=True))


def test_strict_makes_a_bad_image_an_error_and_a_later_build_continues(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "000.jpg").write_bytes(b"no picture")
    with pytest.raises(IntegrityError, match=r"--strict: 1 .* cat/000.jpg \(not a picture"):
        build_shards(pets(photos), tmp_path / "out", RECIPE, Run(strict=True))
    with pytest.raises(SourceMissing, match="has not finished"):
        Dataset.open(tmp_path / "out")
    assert build_shards(pets(photos), tmp_path / "out", RECIPE).built < 4
    assert Dataset.open(tmp_path / "out").manifest.samples == 12


def test_a_shard_of_bad_images_only_has_no_tar(tmp_path: Path) -> None:
    photos = fill_class_folders(tmp_path / "photos", {"bad": 4, "good": 4})
    for path in (photos / "bad").iterdir():
        path.write_bytes(b"bad")
    build_shards(pets(photos), tmp_path / "out", RECIPE)
    dataset = Dataset.open(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "16").glob("*.tar")] == ["shard-000001.tar"]
    assert [file.name for file in dataset.manifest.shards[16]] == ["shard-000001.tar"]
    assert set(dataset.index["shard"].tolist()) == {1}
    assert dataset.index.rows_of(0) == slice(0, 0)


def test_nothing_but_bad_images_is_an_error(tmp_path: Path) -> None:
    photos = fill_class_folders(tmp_path / "photos", {"bad": 2})
    for path in (photos / "bad").iterdir():
        path.write_bytes(b"bad")
    with pytest.raises(IntegrityError, match="not one of 2 pictures of pets could be built"):
        build_shards(pets(photos), tmp_path / "out", RECIPE)


def test_another_recipe_or_source_is_refused_and_the_difference_named(photos: Path, tmp_path: Path) -> None:
    build_shards(pets(photos), tmp_path / "out", RECIPE)
    before = tree_hashes(tmp_path / "out")
    with pytest.raises(UsageError, match=r"seed 0 there, 1 asked for"):
        build_shards(pets(photos), tmp_path / "out", Recipe(sizes=(16,), shard_samples=4, seed=1))
    (photos / "dog" / "new.jpg").write_bytes(jpeg_bytes(1))
    with pytest.raises(UsageError, match="the source holds other files now"):
        build_shards(pets(photos), tmp_path / "out", RECIPE)
    (tmp_path / "out" / "dataset.json").unlink()
    with pytest.raises(UsageError, match="the source holds other files now"):
        build_shards(pets(photos), tmp_path / "out", RECIPE)
    assert set(tree_hashes(tmp_path / "out")) == set(before) - {"dataset.json"}


def test_a_folder_with_other_things_is_not_built_into(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(UsageError, match=r"holds other things \(chapter\.tex\)"):
        build_shards(pets(photos), tmp_path / "thesis", RECIPE)
    with pytest.raises(UsageError, match="is not a folder"):
        build_shards(pets(photos), tmp_path / "thesis" / "chapter.tex", RECIPE)


def test_a_source_that_is_not_there_leaves_no_folder_behind(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing):
        build_shards(pets(tmp_path / "absent"), tmp_path / "out", RECIPE)
    assert not (tmp_path / "out").exists()


def test_what_a_killed_build_left_is_removed(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".build").mkdir(parents=True)
    left = [temporary_path(out / "16" / "shard-000000.tar"), temporary_path(out / "dataset.json")]
    for file in left:
        make_folder(file.parent)
        file.touch()
    build_shards(pets(photos), out, RECIPE)
    assert not any(file.exists() for file in left)


def test_a_source_that_disappears_stops_the_build_and_is_not_quarantined(
    photos: Path, tmp_path: Path
) -> None:
    class Vanishing(FolderSource):
        def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
            shutil.rmtree(self.root, ignore_errors=True)
            return super().pictures(items)

    with pytest.raises(FileNotFoundError):
        build_shards(Vanishing(name="pets", root=photos), tmp_path / "out", RECIPE, Run(workers=1))
    assert not list((tmp_path / "out" / ".build").glob("shard-*"))


def test_a_disk_without_hard_links_is_built_on_too(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_shards(pets(photos), tmp_path / "usual", RECIPE, Run(workers=1))

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    build_shards(pets(photos), tmp_path / "plain", RECIPE, Run(workers=1))
    assert tree_hashes(tmp_path / "plain") == tree_hashes(tmp_path / "usual")


class ScanSource(Source):
    """The source that `pipeline/sources/base.py` shows as an example."""

    def survey(self) -> Survey:
        classes = tuple(ClassRecord(name=d.name) for d in sorted(self.root.iterdir()))
        items = (
            Item(name=f"{c.name}/{f.name}", class_id=i, file=f"{c.name}/{f.name}")
            for i, c in enumerate(classes)
            for f in sorted((self.root / c.name).iterdir())
        )
        return Survey(classes=classes, items=items)


def test_a_source_of_your_own_needs_one_method(photos: Path, tmp_path: Path) -> None:
    build_shards(ScanSource(name="scans", root=photos), tmp_path / "scans", RECIPE, Run(workers=2))
    assert Dataset.open(tmp_path / "scans").manifest.samples == 13
