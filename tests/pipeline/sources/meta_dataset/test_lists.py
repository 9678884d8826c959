"""The readers behind the lists: COCO's annotations as a stream, MATLAB labels, widened boxes."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from pipeline.constants import READ_BLOCK
from pipeline.errors import IntegrityError
from pipeline.records import Item, Rejected
from pipeline.sources.meta_dataset import META_DATASETS, json_stream
from pipeline.sources.meta_dataset.coco import INSTANCES_FILE, widen_box
from pipeline.sources.meta_dataset.json_stream import list_entries
from pipeline.sources.meta_dataset.matlab import read_numbers
from tests.pipeline.sources.meta_dataset import layouts

PACKED = zlib.compress(bytes(70 << 20))
BOMB = struct.pack("<II", 15, len(PACKED)) + PACKED
"""A compressed element of a MATLAB file: 70 KB that inflate to 70 MB."""


def coco(root: Path) -> list[Item | Rejected]:
    return list(META_DATASETS["mscoco"](root=root).survey().items)


def edited(root: Path, **changes: object) -> Path:
    """The layout, with other values in its first annotation."""
    layouts.mscoco(root)
    file = root / "annotations" / INSTANCES_FILE
    about = json.loads(file.read_bytes())
    about["annotations"][0].update(changes)
    file.write_text(json.dumps(about))
    return root


def test_an_object_is_an_image_cut_to_its_widened_box(tmp_path: Path) -> None:
    layouts.mscoco(tmp_path)
    items = [entry for entry in coco(tmp_path) if isinstance(entry, Item)]
    assert len(items) == 80  # crowds too
    assert {item.split for item in items} == {"validation", "test"}
    assert {item.crop for item in items} == {(3, 2, 16, 9)}
    number = sorted(layouts.class_names("mscoco")).index("person") + 1
    assert items[0].name == f"{number:012d}.jpg:{900100000000 + number}"


@pytest.mark.parametrize(
    ("box", "size", "crop"),
    [
        ([10, 20, 40, 10], (100, 80), (6, 18, 55, 31)),
        ([0, 0, 100, 80], (100, 80), (0, 0, 100, 80)),
        ([4.5, 3, 10, 5.25], (20, 16), (3, 2, 16, 9)),
        ([99, 79, 40, 40], (100, 80), (94, 74, 100, 80)),
        ([200, 10, 5, 5], (100, 80), None),
    ],
)
def test_a_box_grows_about_its_centre_and_stays_in_the_image(
    box: list[float], size: tuple[int, int], crop: tuple[int, ...] | None
) -> None:
    assert widen_box(box, *size) == crop


def test_the_annotations_may_lie_beside_the_images_or_in_their_own_folder(tmp_path: Path) -> None:
    layouts.mscoco(tmp_path)
    before = coco(tmp_path)
    (tmp_path / "annotations" / INSTANCES_FILE).rename(tmp_path / INSTANCES_FILE)
    (tmp_path / "annotations").rmdir()
    assert coco(tmp_path) == before


def test_an_annotation_of_a_missing_image_or_without_area_is_rejected(tmp_path: Path) -> None:
    root = edited(tmp_path, image_id=77777)
    about = json.loads((root / "annotations" / INSTANCES_FILE).read_bytes())
    about["annotations"].append({**about["annotations"][1], "id": 5, "bbox": [50, 50, 1, 1]})
    about["annotations"].append({**about["annotations"][0], "id": 6, "image_id": 1})
    (root / "annotations" / INSTANCES_FILE).write_text(json.dumps(about))
    rejected = [entry for entry in coco(root) if isinstance(entry, Rejected)]
    assert sorted(entry.name for entry in rejected) == ["000000000002.jpg:5", "picture 77777:900100000001"]
    assert any("no area in 20 x 16 pixels" in entry.reason for entry in rejected)


@pytest.mark.parametrize(
    "box",
    [None, [1, 2, 3], "abcd", [1, 2, "x", 4], [1, 2, 10**400, 4], [1, 2, 1e308, 4], [1, float("nan"), 3, 4]],
)
def test_an_annotation_without_a_box_is_an_error(tmp_path: Path, box: object) -> None:
    with pytest.raises(IntegrityError, match=r"annotations.*instances_train2017\.json"):
        coco(edited(tmp_path, bbox=box))


@pytest.mark.parametrize("width", [0, -1, 10**12, 1e400, "wide", None])
def test_an_image_of_impossible_sides_is_an_error(tmp_path: Path, width: object) -> None:
    layouts.mscoco(tmp_path)
    about = json.loads((tmp_path / "annotations" / INSTANCES_FILE).read_bytes())
    about["images"][0]["width"] = width
    (tmp_path / "annotations" / INSTANCES_FILE).write_text(json.dumps(about))
    with pytest.raises(IntegrityError, match=r"annotations.*instances_train2017\.json"):
        coco(tmp_path)


def test_an_entry_has_a_limit_of_depth_and_of_length(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = b'{"images": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}"
    with pytest.raises(IntegrityError, match="nested too deeply"):
        list(list_entries(io.BytesIO(deep)))
    monkeypatch.setattr(json_stream, "ENTRY_LIMIT", READ_BLOCK)
    long = b'{"images": ["' + b"a" * 4 * READ_BLOCK + b'"]}'
    with pytest.raises(IntegrityError, match="an entry has more than 1,048,576 characters"):
        list(list_entries(io.BytesIO(long)))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"images": [], "annotations": [], "x": ' + "[" * 100 + "]" * 100 + "}"]
)
def test_a_list_of_fungi_that_is_nested_deeply_is_an_error(text: str, tmp_path: Path) -> None:
    layouts.fungi(tmp_path)
    (tmp_path / "val.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"val\.json is not the list it should be"):
        META_DATASETS["fungi"](root=tmp_path).survey()


@pytest.mark.parametrize("cut", [0.01, 0.3, 0.6, 0.99])
def test_cut_off_annotations_are_an_error(tmp_path: Path, cut: float) -> None:
    layouts.mscoco(tmp_path)
    file = tmp_path / "annotations" / INSTANCES_FILE
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(IntegrityError, match="no JSON, or cut off"):
        coco(tmp_path)


def test_a_stream_gives_what_the_whole_would() -> None:
    about: dict[str, list[object]] = {
        "images": [{"id": number, "name": "é" * (number % 7), "x": [1.5, None]} for number in range(999)],
        "none": [],
        "numbers": list(range(1000)),
    }
    text = json.dumps({"info": {"a": [1]}, **about, "end": 12}, ensure_ascii=False, indent=1)
    padded = text.replace("[\n", "[" + " " * READ_BLOCK + "\n", 2)
    for form in (text, padded):
        found: dict[str, list[object]] = {"none": []}
        for key, entry in list_entries(io.BytesIO(form.encode())):
            found.setdefault(key, []).append(entry)
        assert found == about


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"a"', '{"a": [1', '{"a": [1 2]}', '{"a": [1,]}', '{"a": tru}', '{"a": ["\xff"]}'],
)
def test_what_is_no_json_is_an_error_with_its_place(text: str) -> None:
    with pytest.raises(IntegrityError, match="at character"):
        list(list_entries(io.BytesIO(text.encode("latin-1"))))


@pytest.mark.parametrize("compressed", [True, False])
def test_labels_are_read_as_scipy_writes_them(tmp_path: Path, *, compressed: bool) -> None:
    scipy_io = pytest.importorskip("scipy.io", reason="SciPy writes the files for this test")
    labels = np.arange(1, 103, dtype=np.uint8)[None]
    for dtype in ("u1", "i2", "i4", "f8"):
        other = {"setid": np.ones((2, 3)), "labels": labels.astype(dtype)}
        scipy_io.savemat(tmp_path / "a.mat", other, do_compression=compressed)
        assert read_numbers((tmp_path / "a.mat").read_bytes(), "labels").tolist() == labels[0].tolist()


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("count", [1, 4, 5, 8189])
def test_labels_of_any_number_are_read(count: int, *, compressed: bool) -> None:
    labels = [number % 102 + 1 for number in range(count)]
    data = layouts.matlab(labels, compressed=compressed)
    assert read_numbers(data, "labels").tolist() == labels


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not a MATLAB 5 file"),
        (b"\x89HDF" + bytes(200), "not a MATLAB 5 file"),
        (layouts.matlab([1, 2, 3], name=b"setid"), "no matrix 'labels'"),
        (layouts.matlab([1] * 50)[:-9], "damaged"),
        (layouts.matlab([1] * 50, compressed=False)[:-9], "damaged"),
        (
            layouts.matlab([3], compressed=False, name=b"setid") + BOMB,
            "inflates to more than 67,108,864 bytes",
        ),
    ],
)
def test_labels_that_cannot_be_read_are_an_error(data: bytes, problem: str) -> None:
    with pytest.raises(IntegrityError, match=problem):
        read_numbers(data, "labels")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_labels_that_are_no_whole_numbers_are_an_error(value: float) -> None:
    scalar = layouts.matlab([1, 2, 3, 4, 5, 6, 7, 8], compressed=False)
    kind, size = struct.pack("<II", 2, 8), 8
    assert scalar.endswith(kind + bytes(range(1, 9)))
    data = scalar[: -len(kind) - size] + struct.pack("<IId", 9, 8, value)
    with pytest.raises(IntegrityError, match="its numbers are no labels"):
        read_numbers(data, "labels")
