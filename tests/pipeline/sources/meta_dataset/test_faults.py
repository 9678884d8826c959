"""What may be wrong with a download, and the error that the user sees."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.records import Item, Rejected
from pipeline.sources.meta_dataset import META_DATASETS
from pipeline.sources.meta_dataset.raw import RawSource
from tests.pipeline.sources.meta_dataset import layouts
from tests.pipeline.sources.meta_dataset.conftest import Layout


def source_of(dataset: str, root: Path) -> RawSource:
    return META_DATASETS[dataset](root=root, scratch=root.with_name("scratch"))


@pytest.mark.parametrize("dataset", META_DATASETS)
@pytest.mark.parametrize("state", ["absent", "empty", "other"])
def test_a_missing_source_is_an_error_with_each_file_its_origin_its_size_and_the_folders_searched(
    dataset: str, state: str, tmp_path: Path
) -> None:
    root = tmp_path / dataset
    if state != "absent":
        root.mkdir()
    if state == "other":
        layouts.put(root / "holiday.zip", b"")
        layouts.put(root / "more" / "a.jpg", b"")
    with pytest.raises(SourceMissing) as caught:
        source_of(dataset, root).survey()
    message = str(caught.value)
    assert not META_DATASETS[dataset].is_available(root)
    assert str(root) in message
    for part in META_DATASETS[dataset].parts:
        assert part.file in message
        assert part.url in message
    assert "GB" in message or "MB" in message or "bytes" in message
    assert ("does not exist" in message) == (state == "absent")


def test_of_two_files_the_missing_one_is_marked(downloads: Layout) -> None:
    root = downloads("vgg_flower")
    (root / "imagelabels.mat").unlink()
    with pytest.raises(SourceMissing) as caught:
        source_of("vgg_flower", root).survey()
    assert "found    102flowers.tgz" in str(caught.value)
    assert "missing  imagelabels.mat" in str(caught.value)


WRONG = [
    (dataset, archive)
    for dataset, archives in layouts.ARCHIVES.items()
    for archive in archives
    if archive != "annotations_trainval2017.zip"
]


@pytest.mark.parametrize(("dataset", "archive"), WRONG)
def test_the_wrong_archive_is_recognised(
    dataset: str, archive: str, downloads: Layout, tmp_path: Path
) -> None:
    root = downloads(dataset)
    layouts.put(tmp_path / "other" / "holiday" / "beach.jpg", b"")
    (root / archive).unlink()
    layouts.pack(tmp_path / "other", ("holiday",), root / archive)
    with pytest.raises(IntegrityError, match="holds holiday; it is not the official file"):
        source_of(dataset, root).survey()


def test_an_annotation_archive_without_the_list_is_an_error(downloads: Layout, tmp_path: Path) -> None:
    root = downloads("mscoco")
    layouts.put(tmp_path / "other" / "annotations" / "captions_val2017.json", "{}")
    (root / "annotations_trainval2017.zip").unlink()
    layouts.pack(tmp_path / "other", ("annotations",), root / "annotations_trainval2017.zip")
    with pytest.raises(IntegrityError, match=r"instances_train2017\.json is not in it"):
        source_of("mscoco", root).survey()


@pytest.mark.parametrize(
    ("dataset", "archive"), [(d, a) for d, archives in layouts.ARCHIVES.items() for a in archives]
)
def test_a_cut_off_archive_is_an_error_and_leaves_nothing_behind(
    dataset: str, archive: str, downloads: Layout, tmp_path: Path
) -> None:
    root = downloads(dataset)
    data = (root / archive).read_bytes()
    (root / archive).write_bytes(data[: len(data) // 2])
    with pytest.raises(IntegrityError, match=archive):
        source_of(dataset, root).survey()
    scratch = tmp_path / "scratch"
    left = [path.name for path in scratch.iterdir()] if scratch.exists() else []
    assert f"{archive}.inflated" not in left
    assert not any(name.endswith(".partial") for name in left)


LISTS = ("images_box.txt", "images_variant_trainval.txt", "images_variant_test.txt")


@pytest.mark.parametrize("missing", LISTS)
def test_a_missing_list_of_aircraft_is_named(missing: str, tmp_path: Path) -> None:
    layouts.aircraft(tmp_path)
    (tmp_path / "fgvc-aircraft-2013b" / "data" / missing).unlink()
    with pytest.raises(SourceMissing, match="images_" if "trainval" not in missing else "unpacked"):
        source_of("aircraft", tmp_path).survey()


@pytest.mark.parametrize("text", ["0000077 1 2 3\n", "0000077 a b c d\n", "\x00\x01\n", ""])
def test_malformed_boxes_of_aircraft_are_an_error(text: str, tmp_path: Path) -> None:
    layouts.aircraft(tmp_path)
    (tmp_path / "fgvc-aircraft-2013b" / "data" / "images_box.txt").write_text(text)
    with pytest.raises(IntegrityError, match=r"images_box\.txt"):
        source_of("aircraft", tmp_path).survey()


@pytest.mark.parametrize("text", ["", "{}", '{"images": 3}', '{"images": [], "annotations": [1]}'])
def test_malformed_lists_of_fungi_are_an_error(text: str, tmp_path: Path) -> None:
    layouts.fungi(tmp_path)
    (tmp_path / "val.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"val\.json is not the list it should be"):
        source_of("fungi", tmp_path).survey()


def test_listed_images_that_are_not_there_are_rejected_and_the_rest_is_built(tmp_path: Path) -> None:
    layouts.aircraft(tmp_path / "aircraft")
    (tmp_path / "aircraft" / "fgvc-aircraft-2013b" / "data" / "images" / "0000377.jpg").unlink()
    entries = list(source_of("aircraft", tmp_path / "aircraft").survey().items)
    assert len([entry for entry in entries if isinstance(entry, Item)]) == 199
    assert [entry for entry in entries if isinstance(entry, Rejected)] == [
        Rejected("images/0000377.jpg", "is listed and is not there")
    ]


@pytest.mark.parametrize(
    ("dataset", "folder", "name"),
    [
        ("cu_birds", "CUB_200_2011/images/144.Common_Tern", "144.Common_Tern"),
        ("dtd", "dtd/images/chequered", "chequered"),
        ("traffic_sign", "GTSRB/Final_Training/Images/00014", r"14\.Stop"),
        ("omniglot", "images_background/Latin/character03", "Latin-character03"),
    ],
)
def test_a_missing_class_is_named(dataset: str, folder: str, name: str, tmp_path: Path) -> None:
    layouts.UNPACKED[dataset](tmp_path)
    shutil.rmtree(tmp_path / folder)
    with pytest.raises(SourceMissing, match=f"1 of them are not in .*: {name}"):
        source_of(dataset, tmp_path).survey()


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    layouts.quickdraw(tmp_path)
    (tmp_path / "The Eiffel Tower.npy").unlink()
    with pytest.raises(SourceMissing, match=r"1 of them are not in .*: The Eiffel Tower"):
        source_of("quickdraw", tmp_path).survey()


def test_a_class_of_which_every_image_is_missing_is_an_error(tmp_path: Path) -> None:
    layouts.vgg_flower(tmp_path)
    (tmp_path / "jpg" / "image_00102.jpg").unlink()  # the only one with label 1
    with pytest.raises(IntegrityError, match=r"no picture in .*: 001\.pink primrose"):
        list(source_of("vgg_flower", tmp_path).survey().items)


def test_flowers_without_a_label_and_labels_that_are_no_class_are_reported(tmp_path: Path) -> None:
    layouts.vgg_flower(tmp_path)
    names = sorted(layouts.class_names("vgg_flower"))
    (tmp_path / "imagelabels.mat").write_bytes(layouts.matlab([*range(102, 0, -1), 200]))
    rejected = [
        entry for entry in source_of("vgg_flower", tmp_path).survey().items if isinstance(entry, Rejected)
    ]
    assert len(names) == 102
    assert rejected == [
        Rejected("image_00104.jpg", "has no label in imagelabels.mat"),
        Rejected("label 200", "is not one of the 102 classes of vgg_flower"),
    ]
