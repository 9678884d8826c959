"""TFDS' own builders run on tiny archives in the official layouts; TFDS' own reader is the reference."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import pickle
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.records import Item, Rejected
from pipeline.sources.vtab.source import VtabSource
from pipeline.sources.vtab.tasks import VTAB_FAMILY, VTAB_TASKS, VtabTask, parse_slices
from tests.pipeline.sources.vtab.archives import encoded_image, random_array
from tests.pipeline.sources.vtab.fixtures import NEEDED, prepared_by_tfds
from tests.pipeline.sources.vtab.tfds_fixtures import example, write_prepared

needs_tensorflow = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason="TFDS' builders need the extra: pip install -e '.[tensorflow]'",
)

# Sizes of the fixtures, and small slices: train, validation, test, LITE's train and test.
SMALL = {
    "caltech101": "train=60 test=4|train[:8]|train[50:52]|test|train[:10]|test",
    "cifar100": "train=12 test=7|train[:4]|train[9:11]|test|train[:5]|test",
    "flowers102": "train=3 validation=2 test=7|train[:2]|validation[:1]|test|train[:3]|test",
    "pets": "train=4 test=2|train[:2]|train[3:4]|test|train[:3]|test",
    "sun397": "train=5 validation=2 test=3|train[:4]|validation[:1]|test||",
    "svhn": "train=6 test=4|train[:2]|train[4:5]|test|train[:3]|test",
    "eurosat": "train=6|train[:2]|train[3:4]|train[5:]|train[:3]|train[3:]",
    "resisc45": "train=6|train[:2]|train[3:4]|train[4:]|train[:3]|train[3:]",
    "camelyon": "train=5 validation=4 test=3|train[:3]|validation[:2]|test|train[:4]|test",
    "retinopathy": "train=6 validation=2 test=2|train[:3]|validation[:1]|test|train[:4]|test",
    "clevr_count": "train=6 validation=4|train[:3]|train[4:5]|validation|train[:4]|validation",
    "clevr_distance": "train=6 validation=4|train[:3]|train[4:5]|validation|train[:4]|validation",
    "dmlab": "train=5 validation=3 test=4|train[:3]|validation[:2]|test|train[:4]|test",
    "dsprites_orientation": "train=20|train[:5]|train[9:11]|train[15:]|train[:6]|train[6:]",
    "dsprites_location": "train=20|train[:5]|train[9:11]|train[15:]|train[:6]|train[6:]",
    "smallnorb_azimuth": "train=9 test=10|train[:5]|test[:2]|test[5:]|train[:6]|test",
    "smallnorb_elevation": "train=9 test=10|train[:5]|test[:2]|test[5:]|train[:6]|test",
    "kitti_distance": "train=24 validation=3 test=3|train[:9]|validation[:2]|test|train[:20]|test",
}


def small(name: str) -> VtabTask:
    sizes, train, validation, test, lite_train, lite_test = SMALL[name].split("|")
    return replace(
        VTAB_TASKS[name],
        sizes={split: int(size) for split, size in (s.split("=") for s in sizes.split())},
        train=parse_slices(train),
        validation=parse_slices(validation),
        test=parse_slices(test),
        lite_train=parse_slices(lite_train),
        lite_test=parse_slices(lite_test),
    )


def nearest(depths: Any, thresholds: list[float]) -> int:
    """As the papers' codes compute it."""
    below = np.where(np.asarray(thresholds, np.float32) - np.min(depths) < 0)
    return int(np.max(below))


def kitti(example: Mapping[str, Any]) -> int:
    objects = example["objects"]
    vehicles = np.where(np.asarray(objects["type"]) < 3)[0]
    locations = np.asarray(objects["location"], np.float32).reshape(-1, 3)
    depths = np.concatenate([locations[vehicles, 2], np.array([1000.0], np.float32)])
    return nearest(depths, [-100.0, 8.0, 20.0, 999.0])


def label(example: Mapping[str, Any]) -> int:
    return int(example["label"])


CLEVR = [0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0]
REFERENCE: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "clevr_count": lambda e: len(e["objects"]["size"]) - 3,
    "clevr_distance": lambda e: nearest(np.asarray(e["objects"]["pixel_coords"])[:, 2], CLEVR),
    "dsprites_orientation": lambda e: int(np.floor(np.float32(e["label_orientation"]) / 2.5)),
    "dsprites_location": lambda e: int(np.floor(np.float32(e["label_x_position"]) / 2.0)),
    "smallnorb_azimuth": lambda e: int(e["label_azimuth"]),
    "smallnorb_elevation": lambda e: int(e["label_elevation"]),
    "kitti_distance": kitti,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return prepared_by_tfds(tmp_path_factory.getbasetemp())


def listed(source: VtabSource) -> list[Item]:
    items = list(source.survey().items)
    assert not [item for item in items if isinstance(item, Rejected)]
    return [item for item in items if isinstance(item, Item)]


def decoded(data: object) -> NDArray[np.uint8]:
    if isinstance(data, np.ndarray):
        return data
    assert isinstance(data, bytes)
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def reference(root: Path, task: VtabTask, config: str, part: str) -> list[Mapping[str, Any]]:
    """What TFDS reads; it has slices of its own."""
    import tensorflow_datasets as tfds  # noqa: PLC0415

    (folder,) = (root / task.builder / config).glob("[0-9]*")
    builder: Any = tfds.builder_from_directory(folder)
    return list(builder.as_data_source(split=part))


@needs_tensorflow
@pytest.mark.parametrize("name", VTAB_FAMILY)
def test_labels_images_and_splits_are_those_that_tfds_reads(
    name: str, prepared: tuple[Path, Path, Path]
) -> None:
    task = small(name)
    source = VtabSource(name=name, root=prepared[1], task=task)
    items = listed(source)
    images = dict(zip((i.name for i in items), map(decoded, source.pictures(items)), strict=True))
    _, train, validation, test, lite_train, lite_test = SMALL[name].split("|")
    label_of = REFERENCE.get(name, label)
    used = 0
    for field, config, split, part in (
        ("split", task.config, "train", train),
        ("split", task.config, "validation", validation),
        ("split", task.config, "test", test),
        ("split_lite", task.lite_config, "train", lite_train),
        ("split_lite", task.lite_config, "test", lite_test),
    ):
        mine = [item for item in items if getattr(item, field) == split and part]
        expected = reference(prepared[1], task, config, part) if part else []
        assert [item.class_id for item in mine] == [label_of(e) for e in expected]
        assert [item.frame for item in mine] == sorted(item.frame for item in mine)
        for item, wanted in zip(mine, expected, strict=True):
            assert item.name == "/".join([*item.name.split("/")[:-1], str(item.frame)])
            pixels = wanted["image"] * np.uint8(255 if "dsprites" in name else 1)
            found = images[item.name]
            assert np.array_equal(found.reshape(pixels.shape), pixels)
            used += 1
    assert used >= len(items) or name == "sun397"


@needs_tensorflow
@pytest.mark.parametrize("name", VTAB_FAMILY)
def test_both_file_formats_give_the_same_images(name: str, prepared: tuple[Path, Path, Path]) -> None:
    task = small(name)
    contents = []
    for root in prepared[1:]:
        source = VtabSource(name=name, root=root, task=task)
        items = listed(source)
        data = [p if isinstance(p, bytes) else decoded(p).tobytes() for p in source.pictures(items)]
        rows = [(i.name, i.class_id, i.split, i.split_lite, i.frame) for i in items]
        contents.append(list(zip(rows, data, strict=True)))
    assert contents[0]
    assert contents[0] == contents[1]


@needs_tensorflow
def test_class_names_come_from_tfds_or_from_the_bins(prepared: tuple[Path, Path, Path]) -> None:
    def names(name: str) -> list[str]:
        source = VtabSource(name=name, root=prepared[1], task=small(name))
        return [record.name for record in source.survey().classes]

    assert {name: len(names(name)) for name in VTAB_FAMILY} == {
        name: task.classes for name, task in VTAB_TASKS.items()
    }
    assert names("caltech101")[:2] == ["accordion", "airplanes"]
    assert names("cifar100")[-1] == "fine_99"  # the fixture's own
    assert names("sun397")[0] == "/a/abbey"
    assert names("retinopathy") == ["0", "1", "2", "3", "4"]
    assert names("clevr_distance")[0] == "depth 0 to 8"
    assert names("dsprites_orientation")[:2] == ["orientation 0 to 2", "orientation 3 to 4"]


@needs_tensorflow
def test_fixtures_hold_the_classes_that_were_written(prepared: tuple[Path, Path, Path]) -> None:
    def counts(name: str) -> Mapping[int, int]:
        items = listed(VtabSource(name=name, root=prepared[1], task=small(name), protocol="lite"))
        return Counter(item.class_id for item in items)

    assert counts("eurosat") == {1: 2, 8: 2, 9: 2}  # Forest, River, SeaLake
    assert counts("resisc45") == {0: 2, 4: 2, 44: 2}  # airplane, beach, wetland
    assert counts("flowers102")[54] == 1  # image 7 is of class 55, counted from one
    assert sum(counts("dsprites_location").values()) == 20


@needs_tensorflow
def test_a_protocol_lists_only_what_it_uses(prepared: tuple[Path, Path, Path]) -> None:
    task = small("retinopathy")
    both, vtab, lite = (
        listed(VtabSource(name="retinopathy", root=prepared[1], task=task, protocol=protocol))
        for protocol in ("both", "vtab", "lite")
    )
    title = "diabetic_retinopathy_detection"
    assert all(item.name.startswith(f"{title}/btgraham-300/") for item in vtab)
    assert all(item.name.startswith(f"{title}/original/") for item in lite)
    assert all(item.split and not item.split_lite for item in vtab)
    assert all(item.split_lite and not item.split for item in lite)
    assert both == vtab + lite
    assert len({item.name for item in both}) == len(both)
    assert f"{title}/original/train/0" in {item.name for item in both}


@needs_tensorflow
def test_sun397_draws_as_lite_does(prepared: tuple[Path, Path, Path]) -> None:
    items = listed(VtabSource(name="sun397", root=prepared[1], task=small("sun397")))
    lite = Counter(item.split_lite for item in items)
    assert (lite["train"], lite["test"]) == (7, 2)  # 70, 10 and 20 % of ten
    only = listed(VtabSource(name="sun397", root=prepared[1], task=small("sun397"), protocol="lite"))
    assert {i.name for i in only} == {i.name for i in items if i.split_lite}


@needs_tensorflow
def test_raw_archives_are_prepared_next_to_the_source_and_only_once(
    prepared: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    archive = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5"
    (tmp_path / archive).write_bytes((prepared[0] / archive).read_bytes())
    task = small("dsprites_location")
    source = VtabSource(name="dsprites", root=tmp_path, task=task, check_archives=False)
    first = listed(source)
    (folder,) = (tmp_path / "tfds" / "dsprites").iterdir()
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert listed(pickle.loads(pickle.dumps(source))) == first
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made
    assert all(item.file.startswith("tfds/dsprites/") for item in first)
    assert len(list(source.pictures(first))) == 20


@needs_tensorflow
def test_a_source_that_cannot_be_written_is_prepared_in_the_scratch_folder(
    prepared: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    root, scratch = tmp_path / "read-only", tmp_path / "scratch"
    root.mkdir()
    (root / "EuroSAT.zip").write_bytes((prepared[0] / "EuroSAT.zip").read_bytes())
    task = small("eurosat")
    source = VtabSource(name="eurosat", root=root, scratch=scratch, task=task, check_archives=False)
    items = listed(source)
    assert [path.name for path in root.iterdir()] == ["EuroSAT.zip"]
    assert all(item.file.startswith("@tfds/eurosat/rgb/") for item in items)
    assert all(isinstance(data, bytes) for data in source.pictures(items))


def test_a_missing_source_says_what_to_get_where_and_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing) as caught:
        VtabSource(name="svhn", root=tmp_path, task=VTAB_TASKS["svhn"]).survey()
    message = str(caught.value)
    for part in ("train_32x32.mat", "1.58 GB", "ufldl.stanford.edu", str(tmp_path), "3.*"):
        assert part in message


def cifar_records(labels: list[int]) -> list[bytes]:
    return [
        example({"image": [encoded_image(i, 8, 8, "PNG")], "label": [label]})
        for i, label in enumerate(labels)
    ]


def tiny_cifar(root: Path, train: list[list[int]], test: list[list[int]]) -> VtabSource:
    """A prepared folder written without TFDS, in several shards."""
    shards = {"train": [cifar_records(labels) for labels in train]}
    shards["test"] = [cifar_records(labels) for labels in test]
    write_prepared(root, shards)
    return VtabSource(name="cifar100", root=root, task=small("cifar100"))


def test_a_prepared_folder_is_read_without_tfds_across_shards(tmp_path: Path) -> None:
    source = tiny_cifar(tmp_path, [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9, 10, 11]], [[1] * 7])
    items = listed(source)
    train = [item for item in items if item.split_lite == "train" or item.split == "validation"]
    assert [item.class_id for item in train] == [0, 1, 2, 3, 4, 9, 10]
    assert [item.frame for item in train] == [0, 1, 2, 3, 4, 9, 10]
    backwards = items[::-1]
    digests = [hashlib.sha256(bytes(d)).digest() for d in source.pictures(backwards) if isinstance(d, bytes)]
    forwards = [hashlib.sha256(bytes(d)).digest() for d in source.pictures(items) if isinstance(d, bytes)]
    assert digests == forwards[::-1]
    assert len(digests) == len(items)


def test_slices_beyond_the_end_are_an_error_and_not_a_smaller_benchmark(tmp_path: Path) -> None:
    tiny_cifar(tmp_path, [[0] * 12], [[1] * 7])
    source = VtabSource(name="cifar100", root=tmp_path, task=VTAB_TASKS["cifar100"])
    with pytest.raises(IntegrityError, match=r"train\[0:800\].*has 12 records.*50,000"):
        source.survey()


def test_other_sizes_than_the_published_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_cifar(tmp_path, [[0] * 13], [[1] * 7]).survey()
    assert "13 records in train and not the published 12" in caplog.text


def test_a_label_that_is_no_class_is_rejected_with_its_name(tmp_path: Path) -> None:
    source = tiny_cifar(tmp_path, [[0, 100] + [2] * 10], [[1] * 7])
    rejected = [item for item in source.survey().items if isinstance(item, Rejected)]
    assert rejected == [Rejected("cifar100/train/1", "its label 100 is none of the 100 classes")]


def test_a_flipped_bit_rejects_the_one_image(tmp_path: Path) -> None:
    source = tiny_cifar(tmp_path, [[0] * 12], [[1] * 7])
    items = listed(source)
    file = tmp_path / items[2].file
    data = bytearray(file.read_bytes())
    data[items[2].offset + 40] ^= 1
    file.write_bytes(data)
    found = list(source.pictures(items))
    assert isinstance(found[2], Rejected)
    assert "checksum" in found[2].reason
    assert sum(isinstance(data, Rejected) for data in found) == 1


def test_a_dsprites_image_that_does_not_decode_is_rejected(tmp_path: Path) -> None:
    record = {"label_x_position": [3], "label_orientation": [4]}
    good = io.BytesIO()
    Image.fromarray(random_array(1, 8, 8, high=2)).save(good, "PNG")
    records = [example({**record, "image": [data]}) for data in (good.getvalue(), b"no picture")]
    write_prepared(tmp_path, {"train": [records]}, name="dsprites", version="2.0.0")
    task = replace(
        VTAB_TASKS["dsprites_location"],
        sizes={"train": 2},
        train=parse_slices("train[:1]"),
        validation=parse_slices("train[1:2]"),
        test=(),
        lite_train=parse_slices("train[:1]"),
        lite_test=parse_slices("train[1:]"),
    )
    source = VtabSource(name="dsprites", root=tmp_path, task=task)
    first, second = source.pictures(listed(source))
    assert np.array_equal(decoded(first), random_array(1, 8, 8, high=2) * np.uint8(255))
    assert isinstance(second, Rejected)


@needs_tensorflow
@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="REAL_DATA is not set")
def test_the_real_caltech101_images_go_through_tfds_own_builder(tmp_path: Path) -> None:
    archive = Path(os.environ["REAL_DATA"]) / "caltech101" / "101_ObjectCategories_50.tar"
    inner = io.BytesIO()
    classes: dict[bytes, str] = {}
    with tarfile.open(archive) as source, tarfile.open(fileobj=inner, mode="w:gz", compresslevel=1) as out:
        for member in source.getmembers():
            file = source.extractfile(member)
            data = file.read() if file is not None else b""
            out.addfile(member, io.BytesIO(data))
            if data:
                classes[hashlib.sha256(data).digest()] = member.name.split("/")[-2].lower()
    with zipfile.ZipFile(tmp_path / "caltech-101.zip", "w") as outer:
        outer.writestr("caltech-101/101_ObjectCategories.tar.gz", inner.getvalue())

    task = replace(
        VTAB_TASKS["caltech101"],
        sizes={"train": 1500, "test": 1113},
        validation=parse_slices("train[1350:1500]"),
    )
    caltech = VtabSource(name="caltech101", root=tmp_path, task=task, check_archives=False, protocol="vtab")
    whole = replace(caltech, task=replace(task, train=parse_slices("train[:1350]")))
    items = listed(whole)
    names = [record.name for record in whole.survey().classes]
    assert (len(items), len(names)) == (2613, 102)
    per_class = Counter(item.class_id for item in items if item.split != "test")
    assert set(per_class.values()) == {30}
    assert len(per_class) == 50
    for item, found in zip(items, whole.pictures(items), strict=True):
        assert isinstance(found, bytes)
        assert classes[hashlib.sha256(found).digest()] == names[item.class_id]
    assert Counter(i.split for i in listed(caltech)) == {"train": 800, "validation": 150, "test": 1113}
