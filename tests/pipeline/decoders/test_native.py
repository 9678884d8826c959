"""The compiled decoder fills the rows of sound samples, and leaves all others alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import simplejpeg

from pipeline.layout import npy_header
from pipeline.store.local import LocalStore, OpenShard, SampleLocations
from pipeline.store.mapped import MappedStore
from tests.images import make_image
from tests.pipeline.decoders.planted import (
    SIZE,
    decode_by_pillow,
    image_bytes,
    make_jpegs,
    npy_bytes,
    write_shard,
)

native = pytest.importorskip(
    "pipeline.decoders.native",
    reason="not compiled here: that takes libjpeg-turbo's and ISA-L's headers",
    exc_type=ImportError,
)

STORES = [LocalStore, MappedStore]
UNTOUCHED = 77
OFFSET, LENGTH, CRC = 1, 2, 3


def fill_from_store(
    locations: SampleLocations, store: LocalStore, begin: int = 0, *, fast: bool = False
) -> tuple[Any, list[int]]:
    """Pixels from `begin` on, and the positions that were left alone."""
    return fill_from_files(store.open_shards(locations, begin, len(locations)), locations, begin, fast=fast)


def fill_from_files(
    files: dict[int, OpenShard], locations: SampleLocations, begin: int = 0, *, fast: bool = False
) -> tuple[Any, list[int]]:
    out = np.full((len(locations), locations.size, locations.size, 3), UNTOUCHED, np.uint8)
    left = native.fill(
        files, locations.table, begin, len(locations),
        out.reshape(-1).data, locations.size,
        npy_header(locations.size, locations.size) if locations.encoding.format == "raw" else b"", fast,
    )  # fmt: skip
    return out, left


def encode_as(form: str, pictures: list[bytes]) -> list[bytes]:
    """These JPEGs, or their pixels."""
    return [npy_bytes(pixels) for pixels in decode_by_pillow(pictures)] if form == "raw" else pictures


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("size", [1, 17, 84, 224])
def test_sound_jpegs_have_pillows_pixels(store: type[LocalStore], size: int, tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [{"subsampling": s} for s in ("4:2:0", "4:2:2", "4:4:4")]
    kinds += [{"keep_rgb": True}, {"restart_marker_blocks": 2}, {"optimize": True}]
    pictures = [data for kind in kinds for data in make_jpegs(3, size, **kind)]
    pictures.append(image_bytes(make_image(0, size, size).convert("L")))
    images, left = fill_from_store(write_shard(tmp_path, pictures, size=size), store())
    assert not left
    assert np.array_equal(images, decode_by_pillow(pictures))


@pytest.mark.parametrize("store", STORES)
def test_sound_raws_are_what_was_stored(store: type[LocalStore], tmp_path: Path) -> None:
    needed = np.stack([np.asarray(make_image(seed, SIZE, SIZE)) for seed in range(9)])
    locations = write_shard(tmp_path, [npy_bytes(pixels) for pixels in needed], "raw")
    images, left = fill_from_store(locations, store())
    assert not left
    assert np.array_equal(images, needed)


@pytest.mark.parametrize("form", ["jpeg:95", "raw"])
def test_rows_before_the_first_position_stay_as_they_are(form: str, tmp_path: Path) -> None:
    pictures = make_jpegs(9)
    needed = decode_by_pillow(pictures)
    locations = write_shard(tmp_path, encode_as(form, pictures), form)
    images, left = fill_from_store(locations, LocalStore(), begin=4)
    assert not left
    assert (images[:4] == UNTOUCHED).all()
    assert np.array_equal(images[4:], needed[4:])


def test_fast_is_simplejpegs_fast(tmp_path: Path) -> None:
    pictures = make_jpegs(5)
    images, left = fill_from_store(write_shard(tmp_path, pictures), LocalStore(), fast=True)
    needed = [simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True) for data in pictures]
    assert not left
    assert np.array_equal(images, np.stack(needed))


def unusual_jpegs() -> dict[str, bytes]:
    """JPEGs unlike those of our shards, some of them sound."""
    image, sound = make_image(0, SIZE, SIZE), make_jpegs(1)[0]
    return {
        "empty": b"",
        "no picture": b"text" * 99,
        "truncated": sound[: len(sound) // 2],
        "without its end": sound[:-2],
        "progressive": image_bytes(image, progressive=True),
        "CMYK": image_bytes(image.convert("CMYK")),
        "another size": image_bytes(make_image(0, SIZE, SIZE + 1)),
        "PNG": image_bytes(image, "PNG"),
    }


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", unusual_jpegs())
def test_an_unusual_jpeg_is_left_alone_and_its_neighbours_are_not(
    kind: str, store: type[LocalStore], tmp_path: Path
) -> None:
    pictures = make_jpegs(5)
    needed = decode_by_pillow(pictures)
    pictures[2] = unusual_jpegs()[kind]
    images, left = fill_from_store(write_shard(tmp_path, pictures), store())
    assert left == [2]
    others = [0, 1, 3, 4]
    assert np.array_equal(images[others], needed[others])


def test_an_image_without_tables_does_not_get_those_of_the_one_before(tmp_path: Path) -> None:
    sound = make_jpegs(1)[0]
    at = sound.index(b"\xff\xdb")
    length = int.from_bytes(sound[at + 2 : at + 4], "big") + 2
    _, left = fill_from_store(write_shard(tmp_path, [sound, sound[:at] + sound[at + length :]]), LocalStore())
    assert left == [1]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("change", [0, 60, -1])
def test_a_raw_with_another_header_or_length_is_left_alone(
    change: int, store: type[LocalStore], tmp_path: Path
) -> None:
    sound = npy_bytes(np.asarray(make_image(0, SIZE, SIZE)))
    other = bytearray(sound)
    if change < 0:
        del other[change]
    else:
        other[change] ^= 1
    _, left = fill_from_store(write_shard(tmp_path, [sound, bytes(other), sound], "raw"), store())
    assert left == [1]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("form", ["jpeg:95", "raw"])
def test_bytes_with_another_checksum_and_files_that_end_are_left_alone(
    form: str, store: type[LocalStore], tmp_path: Path
) -> None:
    locations = write_shard(tmp_path, encode_as(form, make_jpegs(4)), form)
    locations.table[1, CRC] ^= 1
    with locations.file(0).open("r+b") as file:
        file.truncate(locations.offsets[3] + locations.lengths[3] - 1)
    _, left = fill_from_store(locations, store())
    assert left == [1, 3]
    for offset in (2**62, -1):
        locations.table[0, OFFSET] = offset
        assert fill_from_store(locations, store())[1] == [0, 1, 3]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("form", ["jpeg:95", "raw"])
def test_an_impossible_location_is_left_alone(form: str, store: type[LocalStore], tmp_path: Path) -> None:
    locations = write_shard(tmp_path, encode_as(form, make_jpegs(3)), form)
    for column, value in ((OFFSET, -1), (OFFSET, 2**63 - 1), (LENGTH, -1), (LENGTH, 0), (CRC, -1)):
        for crc in (locations.table[1, CRC], 0):
            table = locations.table.copy()
            table[1, CRC] = crc
            table[1, column] = value
            changed = replace(locations, table=table)
            assert fill_from_store(changed, store())[1] == [1]


@pytest.mark.parametrize("form", ["jpeg:95", "raw"])
def test_a_mapped_file_that_was_cut_since_is_not_looked_at_beyond_its_end(form: str, tmp_path: Path) -> None:
    stored = [*make_jpegs(2), *make_jpegs(1, 24) * 400]  # several pages, or nothing would happen
    if form == "raw":
        stored = [npy_bytes(decode_by_pillow(make_jpegs(1))[0])] * 20
    locations = write_shard(tmp_path, stored, form)
    files = MappedStore().open_shards(locations, 0, len(locations))
    with locations.file(0).open("r+b") as file:
        file.truncate(locations.offsets[1])
    images, left = fill_from_files(files, locations)
    assert left == list(range(1, len(locations)))
    assert (images[1:] == UNTOUCHED).all()


def test_samples_of_several_shards_come_out_of_their_own(tmp_path: Path) -> None:
    pictures = make_jpegs(8)
    needed = decode_by_pillow(pictures)
    one, two = (write_shard(tmp_path / "one", pictures), write_shard(tmp_path / "two", pictures[::-1]))
    files = LocalStore().open_shards(one, 0, 8) | {5: LocalStore().open_shards(two, 0, 8)[0]}
    second = np.array([False, False, True, True, False, True, True, False])
    table = np.where(second[:, None], two.table, one.table)
    table[second, 0] = 5
    out = np.zeros((8, SIZE, SIZE, 3), np.uint8)
    assert not native.fill(files, table, 0, 8, out.data.cast("B"), SIZE, b"", False)  # noqa: FBT003
    for at in range(8):
        assert np.array_equal(out[at], needed[7 - at if second[at] else at])


def test_arguments_that_do_not_fit_are_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    locations, store = write_shard(tmp_path, make_jpegs(3)), LocalStore()
    out = bytearray(3 * SIZE * SIZE * 3)
    table, files = locations.table, store.open_shards(locations, 0, 3)

    def fill(*changed: Any, out: Any = out, begin: int = 0, end: int = 3, size: int = SIZE) -> None:
        native.fill(*(changed or (files, table)), begin, end, out, size, b"", False)  # noqa: FBT003

    refused: list[tuple[type[Exception], Callable[[], None]]] = [
        (ValueError, lambda: fill(out=out[:-1])),
        (ValueError, lambda: fill(end=4)),
        (ValueError, lambda: fill(begin=-1)),
        (ValueError, lambda: fill(begin=2, end=1)),
        (ValueError, lambda: fill(size=0)),
        (ValueError, lambda: fill(size=2**31)),
        (ValueError, lambda: fill(files, table[:2])),
        (ValueError, lambda: fill(files, table.T)),
        (TypeError, lambda: fill(files, table.tolist())),
        (TypeError, lambda: fill(list(files), table)),
        (TypeError, lambda: fill({0: None}, table)),
        (KeyError, lambda: fill({1: files[0]}, table)),
        (TypeError, lambda: fill(out=bytes(out))),
    ]
    for error, call in refused:
        with pytest.raises(error):
            call()
    assert not any(out)


def test_no_memory_or_reference_is_kept(tmp_path: Path) -> None:
    pictures = make_jpegs(40)
    pictures[::3] = [data[: len(data) // 2] for data in pictures[::3]]
    locations, process, memory = write_shard(tmp_path, pictures), psutil.Process(), 0
    files = MappedStore().open_shards(locations, 0, len(locations))
    held = sys.getrefcount(files[0])
    for number in range(200):
        fill_from_store(locations, LocalStore())
        fill_from_store(locations, MappedStore())
        if number == 50:
            memory = process.memory_info().rss
    assert process.memory_info().rss - memory < 4 * 2**20
    out = bytearray(len(locations) * SIZE * SIZE * 3)
    native.fill(files, locations.table, 0, len(locations), out, SIZE, b"", False)  # noqa: FBT003
    left = sys.getrefcount(files[0])  # an assert would add to it
    assert left == held
    out.clear()  # nobody holds on to it


def test_the_header_before_raw_pixels_is_numpys() -> None:
    for size in (1, 84, 224):
        stored = npy_bytes(np.zeros((size, size, 3), np.uint8))
        assert stored.startswith(npy_header(size, size))
        assert len(stored) == len(npy_header(size, size)) + size * size * 3
