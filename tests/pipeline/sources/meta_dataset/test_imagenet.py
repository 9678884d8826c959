"""ImageNet in its three forms, its two versions, and the images that Meta-Dataset leaves out."""

from __future__ import annotations

import logging
import tarfile
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.records import Item, Rejected
from pipeline.sources.archives import open_tree
from pipeline.sources.meta_dataset import META_DATASETS
from pipeline.sources.wordnet import split_graphs
from tests.pipeline.sources.meta_dataset import layouts
from tests.pipeline.sources.meta_dataset.conftest import Layout

ARCHIVE = "ILSVRC2012_img_train.tar"


@pytest.fixture
def plain(unpacked: Layout) -> Path:
    """A folder for each class. Do not change it."""
    return unpacked("ilsvrc_2012")


@pytest.fixture
def packed(published: Layout) -> Path:
    """The tar of tars. Do not change it."""
    return published("ilsvrc_2012")


def linked(plain: Path, target: Path, *, without: str = "") -> Path:
    """A folder with the same classes but one."""
    target.mkdir(parents=True, exist_ok=True)
    for child in (plain / "ILSVRC2012_img_train").iterdir():
        if child.name != without:
            (target / child.name).symlink_to(child)
    return target


def items_of(root: Path, dataset: str = "ilsvrc_2012") -> list[Item | Rejected]:
    return list(META_DATASETS[dataset](root=root).survey().items)


def names(entries: list[Item | Rejected]) -> list[str]:
    return [entry.name for entry in entries]


def test_images_of_inner_tars_are_read_from_their_place_in_the_outer_one(packed: Path) -> None:
    items = [entry for entry in items_of(packed) if isinstance(entry, Item)]
    assert {item.file for item in items} == {ARCHIVE}
    item = items[870]
    with (packed / ARCHIVE).open("rb") as outer:
        outer.seek(item.offset)
        data = outer.read(item.length)
    assert (item.name, item.split) == ("n02666196/n02666196_10.JPEG", "test")
    assert data == layouts.content("ilsvrc_2012", "n02666196")


def test_three_forms_list_the_same_images(plain: Path, packed: Path, tmp_path: Path) -> None:
    layouts.inner_tars(plain / "ILSVRC2012_img_train", tmp_path / "ILSVRC2012_img_train")
    assert names(items_of(plain)) == names(items_of(packed)) == names(items_of(tmp_path))


def test_the_first_version_holds_out_carnivores_and_devices_and_knows_their_words(plain: Path) -> None:
    survey = META_DATASETS["ilsvrc_2012"](root=plain).survey()
    first = [(survey.classes[i].name, survey.classes[i].split) for i in (0, 712, 870)]
    assert first == [("n01440764", "train"), ("n02085620", "validation"), ("n02666196", "test")]
    assert survey.classes[0].words == "tench, Tinca tinca"
    assert survey.hierarchy == split_graphs()


def test_the_second_version_trains_on_all_classes_in_sorted_order(plain: Path) -> None:
    survey = META_DATASETS["ilsvrc_2012_v2"](root=plain).survey()
    found = [record.name for record in survey.classes]
    assert found == sorted(layouts.class_names("ilsvrc_2012"))
    assert {record.split for record in survey.classes} == {"train"}
    assert survey.hierarchy == split_graphs(all_train=True)
    assert len(items_of(plain, "ilsvrc_2012_v2")) == 1000


def test_listed_duplicates_are_left_out_and_missing_lists_are_asked_for(
    plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = linked(plain, tmp_path / "ILSVRC2012_img_train", without="n01440764")
    for number in (10, 99):
        layouts.put(folder / "n01440764" / f"n01440764_{number}.JPEG", b"")
    lines = "# overlap\n\nn01440764/n01440764_99.JPEG  # Some_Bird_1.jpg\n"
    layouts.put(tmp_path / "ImageNet_CUBirds_duplicates.txt", lines)
    caplog.set_level(logging.WARNING)
    assert names(items_of(tmp_path)) == names(items_of(plain))
    assert len(caplog.records) == 2  # one for each of the two surveys
    assert "put ImageNet_Caltech101_duplicates.txt, ImageNet_Caltech256_duplicates.txt (https" in (
        caplog.records[0].getMessage()
    )


def test_what_is_no_class_is_reported(plain: Path, tmp_path: Path) -> None:
    linked(plain, tmp_path)
    layouts.put(tmp_path / "n99999999" / "n99999999_1.JPEG", b"")
    layouts.put(tmp_path / "words.txt", "n00001740\tentity\n")
    layouts.put(tmp_path / "notes.md", "")
    rejected = [entry for entry in items_of(tmp_path) if isinstance(entry, Rejected)]
    assert rejected == [
        Rejected("notes.md", "lies in no class's folder"),
        Rejected("n99999999", "is not one of the 1,000 classes of ilsvrc_2012"),
    ]


def test_an_archive_that_is_cut_off_is_an_error_and_not_a_smaller_dataset(
    packed: Path, tmp_path: Path
) -> None:
    whole = (packed / ARCHIVE).read_bytes()
    (tmp_path / ARCHIVE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match=r"ends within|cut off"):
        items_of(tmp_path)


def test_an_inner_tar_without_its_end_does_not_run_on_into_the_next(packed: Path, tmp_path: Path) -> None:
    inner, root = tmp_path / "inner", tmp_path / "ilsvrc_2012"
    inner.mkdir()
    root.mkdir()
    with tarfile.open(packed / ARCHIVE) as outer:
        outer.extractall(inner, filter="data")
    damaged = inner / "n01443537.tar"
    content = damaged.read_bytes().rstrip(b"\0")
    damaged.write_bytes(content.ljust(-(-len(content) // 512) * 512, b"\0"))
    layouts.pack(inner, layouts.names_in(inner), root / ARCHIVE)
    assert len(open_tree(root / ARCHIVE).members) == 1000
    with pytest.raises(IntegrityError, match=r"damaged or cut off at byte .*, after 1 members"):
        items_of(root)


def test_a_tar_of_something_else_is_refused(tmp_path: Path) -> None:
    layouts.put(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", b"")
    layouts.pack(tmp_path / "val", ("ILSVRC2012_val_00000001.JPEG",), tmp_path / ARCHIVE)
    with pytest.raises(IntegrityError, match=r"holds ILSVRC2012_val_00000001\.JPEG"):
        items_of(tmp_path)


def test_a_missing_class_is_named(plain: Path, tmp_path: Path) -> None:
    linked(plain, tmp_path, without="n02085620")
    with pytest.raises(SourceMissing, match=r"1 of them are not in .*: n02085620"):
        items_of(tmp_path)


def test_a_class_without_images_is_an_error_once_all_are_listed(plain: Path, tmp_path: Path) -> None:
    linked(plain, tmp_path, without="n02085620")
    (tmp_path / "n02085620").mkdir()
    with pytest.raises(IntegrityError, match=r"no picture in .*: n02085620"):
        items_of(tmp_path)
