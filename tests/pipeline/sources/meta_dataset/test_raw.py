"""The raw Meta-Dataset downloads, in small copies of their official layouts."""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.build.images import clean_image
from pipeline.records import Item, Rejected
from pipeline.sources.meta_dataset import META_DATASETS
from pipeline.sources.meta_dataset.classes import official_classes
from pipeline.sources.meta_dataset.raw import RawSource
from tests.pipeline.sources.meta_dataset import layouts
from tests.pipeline.sources.meta_dataset.conftest import Layout

Entries = list[Item | Rejected]


def source_of(dataset: str, root: Path, scratch: Path | None = None) -> RawSource:
    return META_DATASETS[dataset](root=root, scratch=scratch)


def items_of(source: RawSource) -> list[Item]:
    """All entries, none of which may be rejected."""
    entries = list(source.survey().items)
    assert [entry for entry in entries if isinstance(entry, Rejected)] == []
    return [entry for entry in entries if isinstance(entry, Item)]


def expected(dataset: str, item: Item) -> bytes:
    name = layouts.class_names(dataset)[item.class_id]
    if dataset == "quickdraw":
        return layouts.drawing(name + (" again" if item.offset else "")).tobytes()
    return layouts.drawing(name).tobytes() if dataset == "mnist" else layouts.content(dataset, name)


FORMS = [
    (dataset, form)
    for dataset in META_DATASETS
    for form in ("published", "unpacked")
    if (dataset, form) != ("quickdraw", "published")  # which is published as plain files
]


@pytest.mark.parametrize(("dataset", "form"), FORMS)
def test_each_class_is_found_under_its_id_with_its_split_and_its_own_images(
    dataset: str, form: str, unpacked: Layout, published: Layout, tmp_path: Path
) -> None:
    root = published(dataset) if form == "published" else unpacked(dataset)
    source = source_of(dataset, root, tmp_path)
    survey, items = source.survey(), items_of(source)
    assert survey.classes == tuple(entry.record for entry in official_classes(dataset))
    assert sorted({item.class_id for item in items}) == list(range(len(survey.classes)))
    assert [item.class_id for item in items] == sorted(item.class_id for item in items)
    assert all(item.split == survey.classes[item.class_id].split for item in items)
    assert len({item.name for item in items}) == len(items)
    found = list(pickle.loads(pickle.dumps(source)).pictures(items))
    for item, pixels in zip(items, found, strict=True):
        data = pixels.tobytes() if isinstance(pixels, np.ndarray) else pixels
        assert data == expected(dataset, item)


@pytest.mark.parametrize("dataset", META_DATASETS)
def test_a_dataset_is_also_found_one_folder_deeper(dataset: str, unpacked: Layout, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    folder = tmp_path / "data" / META_DATASETS[dataset].folder_name()
    folder.symlink_to(unpacked(dataset))
    find_folder = META_DATASETS[dataset].find_folder
    assert find_folder(tmp_path / "data") == folder
    assert find_folder(tmp_path) is None
    source = source_of(dataset, tmp_path / "data")
    items = items_of(source)
    assert not isinstance(next(source.pictures(items[:1])), Rejected)
    assert {item.class_id for item in items} == set(range(len(official_classes(dataset))))


def test_the_same_images_come_from_an_archive_as_from_its_unpacked_folder(
    unpacked: Layout, published: Layout, tmp_path: Path
) -> None:
    packed = items_of(source_of("dtd", published("dtd"), tmp_path))
    plain = items_of(source_of("dtd", unpacked("dtd")))
    assert [(i.name, i.class_id) for i in packed] == [(i.name, i.class_id) for i in plain]


def test_the_archive_itself_may_be_the_root(published: Layout) -> None:
    file = published("traffic_sign") / "GTSRB_Final_Training_Images.zip"
    source = source_of("traffic_sign", file)
    items = items_of(source)
    assert len(items) == 3 * 43
    assert next(source.pictures(items[:1])) == expected("traffic_sign", items[0])


def test_omniglot_keeps_its_alphabets_and_becomes_white_on_black(unpacked: Layout) -> None:
    source = source_of("omniglot", unpacked("omniglot"))
    item = items_of(source)[883]
    record = source.survey().classes[883]
    assert record.name == "Blackfoot_(Canadian_Aboriginal_Syllabics)-character01"
    assert record.superclass == "Blackfoot_(Canadian_Aboriginal_Syllabics)"
    assert (record.split, item.invert) == ("validation", True)
    (pixels,) = source.pictures([item])
    assert isinstance(pixels, bytes)
    black_on_white = np.asarray(clean_image(pixels, item._replace(invert=False)))
    assert np.array_equal(np.asarray(clean_image(pixels, item)), 255 - black_on_white)


def test_omniglots_background_alone_is_built_with_a_word_about_the_rest(
    downloads: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    root = downloads("omniglot")
    (root / "images_evaluation.zip").unlink()
    source = source_of("omniglot", root)
    survey = source.survey()
    assert Counter(record.split for record in survey.classes) == {"train": 883, "validation": 81}
    assert survey.classes == tuple(e.record for e in official_classes("omniglot")[:964])
    assert len([e for e in survey.items if isinstance(e, Item)]) == 964
    assert "images_evaluation.zip (6.5 MB, https://" in caplog.text


def test_aircraft_is_cut_to_its_box_and_merges_both_of_its_own_splits(unpacked: Layout) -> None:
    source = source_of("aircraft", unpacked("aircraft"))
    items = [item for item in items_of(source) if item.class_id == 3]
    assert source.survey().classes[3].name == "F-16A/B"
    assert [item.name for item in items] == ["images/0000301.jpg", "images/0000377.jpg"]
    assert items[0].crop == layouts.BOX
    (pixels,) = source.pictures(items[:1])
    assert isinstance(pixels, bytes)
    assert clean_image(pixels, items[0]).size == (12, 10)


def test_a_traffic_sign_knows_its_track_and_frame(unpacked: Layout) -> None:
    items = items_of(source_of("traffic_sign", unpacked("traffic_sign")))
    found = [(item.name, item.group, item.frame) for item in items if item.class_id == 14]
    assert found == [
        ("00014/00000_00000.ppm", "00014/00000", 0),
        ("00014/00000_00001.ppm", "00014/00000", 1),
        ("00014/00003_00029.ppm", "00014/00003", 29),
    ]


def test_a_folder_that_is_no_class_is_reported_once_and_leftovers_are_not(tmp_path: Path) -> None:
    root = tmp_path
    layouts.dtd(root)
    for number in range(3):
        layouts.put(root / "dtd" / "images" / "holiday" / f"{number}.jpg", b"")
    layouts.put(root / "dtd" / "images" / "banded" / "Thumbs.db", b"")
    layouts.put(root / "dtd" / "images" / "banded" / "notes.txt", b"")
    entries = list(source_of("dtd", root).survey().items)
    assert [entry for entry in entries if isinstance(entry, Rejected)] == [
        Rejected("holiday", "is not the folder of an official class; files in it: 3"),
        Rejected("banded/notes.txt", "is not a .jpg file, as all pictures of this dataset are"),
    ]


def test_fungi_join_both_lists(unpacked: Layout) -> None:
    items = items_of(source_of("fungi", unpacked("fungi")))
    sizes = Counter(item.class_id for item in items)
    assert sorted(Counter(sizes.values()).items()) == [(1, 1394 - 22), (2, 22)]


def test_mnist_is_grey_pixels_in_ten_training_classes(unpacked: Layout) -> None:
    source = source_of("mnist", unpacked("mnist"))
    items = items_of(source)
    assert [item.name for item in items if item.class_id == 7] == ["00000", "00008", "00011"]
    assert {item.split for item in items} == {"train"}
    (pixels,) = source.pictures(items[:1])
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (28, 28)
    assert Image.fromarray(pixels).mode == "L"


def test_a_wrong_number_of_images_is_a_warning_that_names_the_classes(
    unpacked: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        items_of(source_of("dtd", unpacked("dtd")))
    assert "47 of 47 classes do not have the official number" in caplog.text
    assert "chequered 1 of 120, braided 1 of 120" in caplog.text
    assert "and 42 more" in caplog.text


def test_the_right_number_of_images_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with zipfile.ZipFile(tmp_path / "dtd-r1.0.1.zip", "w") as archive:  # recompressed by the user
        for name in layouts.class_names("dtd"):
            for number in range(120):
                archive.writestr(f"dtd/images/{name}/{name}_{number:04d}.jpg", b"")
    assert len(items_of(source_of("dtd", tmp_path))) == 5640
    assert caplog.text == ""
