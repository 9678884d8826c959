"""Quick, Draw! and MNIST: rows of arrays, a cap per class, and arrays that are refused."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import IntegrityError, UsageError
from pipeline.records import Item
from pipeline.sources.meta_dataset.arrays import MnistSource, QuickDrawSource, evenly_spread
from tests.pipeline.sources.meta_dataset import layouts
from tests.pipeline.sources.meta_dataset.conftest import Layout


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    layouts.quickdraw(tmp_path / "quickdraw")
    return tmp_path / "quickdraw"


def items_of(source: QuickDrawSource | MnistSource) -> list[Item]:
    return [entry for entry in source.survey().items if isinstance(entry, Item)]


def test_a_cap_takes_rows_from_all_over_the_class_and_always_the_same(drawings: Path) -> None:
    np.save(drawings / "swan.npy", np.zeros((1000, 784), np.uint8))
    source = QuickDrawSource(root=drawings, limit_per_class=4)
    rows = [item.offset for item in items_of(source) if item.class_id == 1]
    assert rows == [0, 250, 500, 750]
    assert rows == [item.offset for item in items_of(source) if item.class_id == 1]


@pytest.mark.parametrize(("count", "limit"), [(1, 1), (7, 3), (345, 344), (10, None), (3, 9)])
def test_spread_rows_are_different_and_in_range(count: int, limit: int | None) -> None:
    rows = list(evenly_spread(count, limit))
    assert len(rows) == len(set(rows)) == min(count, limit or count)
    assert 0 <= min(rows) <= max(rows) < count


def test_fifty_million_rows_are_not_listed_before_they_are_asked_for(drawings: Path) -> None:
    header = np.lib.format.header_data_from_array_1_0(np.zeros((0, 784), np.uint8))
    with (drawings / "hedgehog.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": (50_000_000, 784)})
        file.truncate(file.tell() + 50_000_000 * 784)  # a hole; no disk is used
    items = iter(QuickDrawSource(root=drawings).survey().items)
    assert [entry.name for entry in itertools.islice(items, 2)] == ["hedgehog/0", "hedgehog/1"]


def test_truth_values_become_black_and_white(drawings: Path) -> None:
    np.save(drawings / "swan.npy", np.eye(2, 784, dtype=np.bool_))
    source = QuickDrawSource(root=drawings)
    item = next(item for item in items_of(source) if item.class_id == 1)
    (pixels,) = source.pictures([item])
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (28, 28)
    assert (str(pixels.dtype), int(pixels.sum()), int(pixels[0, 0])) == ("uint8", 255, 255)


def test_images_of_more_classes_than_may_be_open_are_read(drawings: Path) -> None:
    source = QuickDrawSource(root=drawings)
    items = items_of(source)[::-1]
    assert len(list(source.pictures(items))) == 690


def test_names_as_a_browser_saves_them_are_understood(drawings: Path) -> None:
    for file in list(drawings.iterdir()):
        file.rename(drawings / f"full_numpy_bitmap_{file.name}")
    assert len(items_of(QuickDrawSource(root=drawings))) == 690


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.array([{"a": 1}], dtype=object), r"holds .*\|O"),
        (np.zeros((3, 784), np.float32), "holds .*<f4"),
        (np.zeros((3, 28, 27), np.uint8), r"holds .*\(3, 28, 27\)"),
    ],
)
def test_other_arrays_are_refused_and_objects_never_loaded(
    drawings: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], problem: str
) -> None:
    np.save(drawings / "swan.npy", array, allow_pickle=True)
    with pytest.raises(IntegrityError, match=problem):
        QuickDrawSource(root=drawings).survey()


@pytest.mark.parametrize(
    "shape", ["(-1, 784)", "(3, -784)", "(99999999999, 784)", "(784,)", "((3,), 784)", "x"]
)
def test_an_array_with_a_made_up_shape_is_an_error(drawings: Path, shape: str) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    start = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little")
    (drawings / "swan.npy").write_bytes(start + header + bytes(3 * 784))
    with pytest.raises(IntegrityError, match="should hold rows of 784 bytes"):
        QuickDrawSource(root=drawings).survey()


def test_a_pipe_in_place_of_an_array_is_an_error_and_not_a_wait(drawings: Path) -> None:
    (drawings / "swan.npy").unlink()
    os.mkfifo(drawings / "swan.npy")
    with pytest.raises(IntegrityError, match="is not a file"):
        QuickDrawSource(root=drawings).survey()


@pytest.mark.parametrize("cut", [0, 5, 100, 900])
def test_a_cut_off_array_is_an_error(drawings: Path, cut: int) -> None:
    data = (drawings / "swan.npy").read_bytes()
    (drawings / "swan.npy").write_bytes(data[:cut])
    with pytest.raises(IntegrityError, match=r"swan\.npy is no array, or cut off"):
        QuickDrawSource(root=drawings).survey()


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_cut_off_idx_file_is_an_error(
    downloads: Layout, name: str, tmp_path: Path, *, packed: bool
) -> None:
    root = tmp_path / "plain"
    layouts.mnist(root)
    file = root / name
    if packed:
        root = downloads("mnist")
        file = root / f"{name}.gz"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(IntegrityError, match=name):
        MnistSource(root=root, scratch=tmp_path / "scratch").survey()


def test_images_and_labels_that_do_not_belong_together_are_an_error(tmp_path: Path) -> None:
    layouts.mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x02\x01\x02")
    with pytest.raises(IntegrityError, match=r"12 pictures and .* 2 labels"):
        MnistSource(root=tmp_path).survey()


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_files_of_another_format_are_refused(tmp_path: Path, name: str) -> None:
    layouts.mnist(tmp_path)
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(IntegrityError, match=r"does not hold (28 x 28 pixels|labels) in IDX"):
        MnistSource(root=tmp_path).survey()


def test_a_compressed_file_needs_a_scratch_folder(published: Layout) -> None:
    with pytest.raises(UsageError, match="no scratch folder"):
        MnistSource(root=published("mnist")).survey()
