"""A folder of class folders, with or without splits, in any wrapping."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import SourceMissing, UsageError
from pipeline.records import Item, Rejected
from pipeline.sources.folder import FolderSource
from tests.images import fill_class_folders


def listed(source: FolderSource) -> tuple[list[tuple[str, str]], list[Item], list[Rejected]]:
    survey = source.survey()
    entries = list(survey.items)
    classes: list[tuple[str, str]] = [(record.name, record.split) for record in survey.classes]
    items = [entry for entry in entries if isinstance(entry, Item)]
    return classes, items, [entry for entry in entries if isinstance(entry, Rejected)]


def test_classes_are_folders_in_sorted_order(photos: Path) -> None:
    classes, items, rejected = listed(FolderSource(root=photos))
    assert classes == [("cat", ""), ("dog", ""), ("one", "")]
    assert [item.class_id for item in items] == [0] * 7 + [1] * 5 + [2]
    assert rejected == []
    source = FolderSource(root=photos)
    assert list(source.pictures(items[:2])) == [(photos / i.name).read_bytes() for i in items[:2]]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_with_its_own_top_folder_gives_the_same_classes(
    kind: str, photos: Path, tmp_path: Path
) -> None:
    archive = tmp_path / f"photos.{kind}"
    if kind == "tar":
        with tarfile.open(archive, "w") as tar:
            tar.add(photos, "photos")
    else:
        with zipfile.ZipFile(archive, "w") as zipped:
            for path in sorted(photos.rglob("*.jpg")):
                zipped.write(path, f"photos/{path.relative_to(photos)}")
    classes, items, _ = listed(FolderSource(root=archive))
    assert classes == [("cat", ""), ("dog", ""), ("one", "")]
    first = next(FolderSource(root=archive).pictures(items))
    assert first == (photos / "cat" / "000.jpg").read_bytes()


def test_the_level_above_may_be_the_split(tmp_path: Path) -> None:
    for split, counts in {"train": {"a": 2, "b": 1}, "val": {"c": 1}, "test": {"a": 1}}.items():
        fill_class_folders(tmp_path / "set" / split, counts)
    classes, items, _ = listed(FolderSource(root=tmp_path / "set", split_by="folder"))
    assert classes == [("a", "test"), ("a", "train"), ("b", "train"), ("c", "validation")]
    assert [item.split for item in items] == ["test", "train", "train", "train", "validation"]


def test_a_file_may_name_the_splits_of_classes_and_images(photos: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits.txt"
    splits.write_text("cat train\ndog\tvalidation\n\none test\ncat/003.jpg test\n")
    classes, items, _ = listed(FolderSource(root=photos, split_by=str(splits)))
    assert classes == [("cat", "train"), ("dog", "validation"), ("one", "test")]
    assert [item.name for item in items if item.split == "test"] == ["cat/003.jpg", "one/000.jpg"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("cat trian\n", "'trian' is not one of train, validation, test"), ("cow train\n", "'cow' is neither")],
)
def test_a_wrong_line_of_a_split_file_is_named(
    text: str, complaint: str, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "splits.txt").write_text("dog test\n" + text)
    with pytest.raises(UsageError, match=rf"splits\.txt:2: {complaint}"):
        FolderSource(root=photos, split_by=str(tmp_path / "splits.txt")).survey()


def test_splits_that_are_not_there_are_an_error(photos: Path) -> None:
    with pytest.raises(UsageError, match="there is no file 'nowhere'"):
        FolderSource(root=photos, split_by="nowhere").survey()
    with pytest.raises(UsageError, match="needs train or validation or test above the classes"):
        FolderSource(root=photos, split_by="folder").survey()


def test_odd_names_are_kept_as_they_are(tmp_path: Path) -> None:
    long = "x" * 120
    fill_class_folders(tmp_path / "set", {"with space": 1, "ünïcode 猫": 1, "dots.in.name": 1, long: 1})
    classes, items, _ = listed(FolderSource(root=tmp_path / "set"))
    assert [name for name, _ in classes] == sorted(["with space", "ünïcode 猫", "dots.in.name", long])
    assert all(isinstance(found, bytes) for found in FolderSource(root=tmp_path / "set").pictures(items))


def test_a_split_file_may_name_what_is_no_utf_8(tmp_path: Path) -> None:
    latin = os.fsdecode(b"caf\xe9")
    fill_class_folders(tmp_path / "set", {latin: 1, "dog": 1})
    (tmp_path / "splits.txt").write_bytes(b"caf\xe9 train\ndog test\n")
    classes, _, _ = listed(FolderSource(root=tmp_path / "set", split_by=str(tmp_path / "splits.txt")))
    assert classes == [(latin, "train"), ("dog", "test")]


@pytest.mark.parametrize("name", ["x/.", "./x", "././x", "x//"])
def test_a_member_whose_name_only_looks_like_a_path_lies_in_no_class(name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for member in (name, "cat/1.jpg"):
            archive.addfile(tarfile.TarInfo(member))
    classes, items, rejected = listed(FolderSource(root=tmp_path / "a.tar"))
    assert (classes, len(items)) == ([("cat", "")], 1)
    assert [entry.reason for entry in rejected] == ["lies in no class's folder"]


def test_loose_files_are_reported_and_litter_is_not(photos: Path) -> None:
    (photos / "readme.txt").write_text("hello")
    for litter in (".DS_Store", "._000.jpg", "Thumbs.db"):
        (photos / "cat" / litter).write_bytes(b"x")
    _, items, rejected = listed(FolderSource(root=photos))
    assert len(items) == 13
    assert rejected == [Rejected("readme.txt", "lies in no class's folder")]


def test_no_images_say_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SourceMissing, match="it holds 1 files and no folder with files"):
        FolderSource(root=tmp_path).survey()
    with pytest.raises(SourceMissing, match="is needed and is not there"):
        FolderSource(root=tmp_path / "absent").survey()


def test_an_unreadable_image_is_a_reason(photos: Path) -> None:
    _, items, _ = listed(FolderSource(root=photos))
    (photos / "cat" / "000.jpg").unlink()
    (photos / "cat" / "000.jpg").mkdir()
    found = next(FolderSource(root=photos).pictures(items))
    assert isinstance(found, Rejected)
    assert "cannot be read" in found.reason


def test_caltech_101_is_fifty_classes_and_2613_images(real_data: Path) -> None:
    archive = real_data / "caltech101" / "101_ObjectCategories_50.tar"
    classes, items, rejected = listed(FolderSource(root=archive))
    assert (len(classes), len(items), rejected) == (50, 2613, [])
