"""What was compiled: the pixels of sound samples, and hands off all others."""

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

from pipeline.decoders.fill import npy_header
from pipeline.store.local import LocalStore, Source, Spots
from pipeline.store.mapped import MappedStore
from tests.pictures import picture
from tests.pipeline.decoders.planted import SIZE, by_pillow, encoded, jpegs, npy, planted

native = pytest.importorskip(
    "pipeline.decoders.native",
    reason="not compiled here: that takes libjpeg-turbo's and ISA-L's headers",
    exc_type=ImportError,
)

STORES = [LocalStore, MappedStore]
UNTOUCHED = 77
OFFSET, LENGTH, CRC = 1, 2, 3


def filled(
    spots: Spots, store: LocalStore, begin: int = 0, *, fast: bool = False
) -> tuple[Any, list[int]]:
    """Pixels from `begin` on, and the positions that were left alone."""
    return filled_from(store.sources(spots, begin, len(spots)), spots, begin, fast=fast)


def filled_from(
    files: dict[int, Source], spots: Spots, begin: int = 0, *, fast: bool = False
) -> tuple[Any, list[int]]:
    out = np.full((len(spots), spots.size, spots.size, 3), UNTOUCHED, np.uint8)
    left = native.fill(
        files, spots.places, begin, len(spots),
        out.reshape(-1).data, spots.size,
        npy_header(spots.size) if spots.encoding.format == "raw" else b"", fast,
    )  # fmt: skip
    return out, left


def stored_as(form: str, pictures: list[bytes]) -> list[bytes]:
    """These JPEGs, or their pixels."""
    return [npy(pixels) for pixels in by_pillow(pictures)] if form == "raw" else pictures


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("size", [1, 17, 84, 224])
def test_sound_jpegs_have_pillows_pixels(
    store: type[LocalStore], size: int, tmp_path: Path
) -> None:
    kinds: list[dict[str, Any]] = [{"subsampling": s} for s in ("4:2:0", "4:2:2", "4:4:4")]
    kinds += [{"keep_rgb": True}, {"restart_marker_blocks": 2}, {"optimize": True}]
    pictures = [data for kind in kinds for data in jpegs(3, size, **kind)]
    pictures.append(encoded(picture(0, size, size).convert("L")))
    images, left = filled(planted(tmp_path, pictures, size=size), store())
    assert not left
    assert np.array_equal(images, by_pillow(pictures))


@pytest.mark.parametrize("store", STORES)
def test_sound_raws_are_what_was_stored(store: type[LocalStore], tmp_path: Path) -> None:
    needed = np.stack([np.asarray(picture(seed, SIZE, SIZE)) for seed in range(9)])
    spots = planted(tmp_path, [npy(pixels) for pixels in needed], "raw")
    images, left = filled(spots, store())
    assert not left
    assert np.array_equal(images, needed)


@pytest.mark.parametrize("form", ["jpeg:95", "raw"])
def test_what_lies_before_the_first_position_stays_as_it_is(form: str, tmp_path: Path) -> None:
    pictures = jpegs(9)
    needed = by_pillow(pictures)
    spots = planted(tmp_path, stored_as(form, pictures), form)
    images, left = filled(spots, LocalStore(), begin=4)
    assert not left
    assert (images[:4] == UNTOUCHED).all()
    assert np.array_equal(images[4:], needed[4:])


def test_fast_is_simplejpegs_fast(tmp_path: Path) -> None:
    pictures = jpegs(5)
    images, left = filled(planted(tmp_path, pictures), LocalStore(), fast=True)
    needed = [
        simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True) for data in pictures
    ]
    assert not left
    assert np.array_equal(images, np.stack(needed))


def unusual() -> dict[str, bytes]:
    """JPEGs that are not what our shards hold, some of them sound."""
    image, sound = picture(0, SIZE, SIZE), jpegs(1)[0]
    return {
        "empty": b"",
        "no picture": b"text" * 99,
        "truncated": sound[: len(sound) // 2],
        "without its end": sound[:-2],
        "progressive": encoded(image, progressive=True),
        "CMYK": encoded(image.convert("CMYK")),
        "another size": encoded(picture(0, SIZE, SIZE + 1)),
        "PNG": encoded(image, "PNG"),
    }


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", unusual())
def test_an_unusual_jpeg_is_left_alone_and_its_neighbours_are_not(
    kind: str, store: type[LocalStore], tmp_path: Path
) -> None:
    pictures = jpegs(5)
    needed = by_pillow(pictures)
    pictures[2] = unusual()[kind]
    images, left = filled(planted(tmp_path, pictures), store())
    assert left == [2]
    others = [0, 1, 3, 4]
    assert np.array_equal(images[others], needed[others])


def test_a_picture_without_tables_does_not_get_those_of_the_one_before(tmp_path: Path) -> None:
    sound = jpegs(1)[0]
    at = sound.index(b"\xff\xdb")
    length = int.from_bytes(sound[at + 2 : at + 4], "big") + 2
    _, left = filled(planted(tmp_path, [sound, sound[:at] + sound[at + length :]]), LocalStore())
    assert left == [1]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("change", [0, 60, -1])
def test_a_raw_with_another_header_or_length_is_left_alone(
    change: int, store: type[LocalStore], tmp_path: Path
) -> None:
    sound = npy(np.asarray(picture(0, SIZE, SIZE)))
    other = bytearray(sound)
    if change < 0:
        del other[change]
    else:
        other[change] ^= 1
    _, left = filled(planted(tmp_path, [sound, bytes(other), sound], "raw"), store())
    assert left == [1]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("form", ["jpeg:95", "raw"])
def test_bytes_with_another_checksum_and_files_that_end_are_left_alone(
    form: str, store: type[LocalStore], tmp_path: Path
) -> None:
    spots = planted(tmp_path, stored_as(form, jpegs(4)), form)
    spots.places[1, CRC] ^= 1
    with spots.file(0).open("r+b") as file:
        file.truncate(spots.offsets[3] + spots.lengths[3] - 1)
    _, left = filled(spots, store())
    assert left == [1, 3]
    for offset in (2**62, -1):
        spots.places[0, OFFSET] = offset
        assert filled(spots, store())[1] == [0, 1, 3]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("form", ["jpeg:95", "raw"])
def test_a_place_that_cannot_be_is_left_alone(
    form: str, store: type[LocalStore], tmp_path: Path
) -> None:
    spots = planted(tmp_path, stored_as(form, jpegs(3)), form)
    for column, value in ((OFFSET, -1), (OFFSET, 2**63 - 1), (LENGTH, -1), (LENGTH, 0), (CRC, -1)):
        for crc in (spots.places[1, CRC], 0):
            places = spots.places.copy()
            places[1, CRC] = crc
            places[1, column] = value
            changed = replace(spots, places=places)
            assert filled(changed, store())[1] == [1]


@pytest.mark.parametrize("form", ["jpeg:95", "raw"])
def test_a_mapped_file_that_was_cut_since_is_not_looked_at_beyond_its_end(
    form: str, tmp_path: Path
) -> None:
    stored = [*jpegs(2), *jpegs(1, 24) * 400]  # several pages, or nothing would happen
    if form == "raw":
        stored = [npy(by_pillow(jpegs(1))[0])] * 20
    spots = planted(tmp_path, stored, form)
    files = MappedStore().sources(spots, 0, len(spots))
    with spots.file(0).open("r+b") as file:
        file.truncate(spots.offsets[1])
    images, left = filled_from(files, spots)
    assert left == list(range(1, len(spots)))
    assert (images[1:] == UNTOUCHED).all()


def test_samples_of_several_shards_come_out_of_their_own(tmp_path: Path) -> None:
    pictures = jpegs(8)
    needed = by_pillow(pictures)
    one, two = planted(tmp_path / "one", pictures), planted(tmp_path / "two", pictures[::-1])
    files = LocalStore().sources(one, 0, 8) | {5: LocalStore().sources(two, 0, 8)[0]}
    second = np.array([False, False, True, True, False, True, True, False])
    places = np.where(second[:, None], two.places, one.places)
    places[second, 0] = 5
    out = np.zeros((8, SIZE, SIZE, 3), np.uint8)
    assert not native.fill(files, places, 0, 8, out.data.cast("B"), SIZE, b"", False)  # noqa: FBT003
    for at in range(8):
        assert np.array_equal(out[at], needed[7 - at if second[at] else at])


def test_what_cannot_be_asked_is_an_error_and_touches_nothing(tmp_path: Path) -> None:
    spots, store = planted(tmp_path, jpegs(3)), LocalStore()
    out = bytearray(3 * SIZE * SIZE * 3)
    places, files = spots.places, store.sources(spots, 0, 3)

    def fill(*changed: Any, out: Any = out, begin: int = 0, end: int = 3, size: int = SIZE) -> None:
        native.fill(*(changed or (files, places)), begin, end, out, size, b"", False)  # noqa: FBT003

    refused: list[tuple[type[Exception], Callable[[], None]]] = [
        (ValueError, lambda: fill(out=out[:-1])),
        (ValueError, lambda: fill(end=4)),
        (ValueError, lambda: fill(begin=-1)),
        (ValueError, lambda: fill(begin=2, end=1)),
        (ValueError, lambda: fill(size=0)),
        (ValueError, lambda: fill(size=2**31)),
        (ValueError, lambda: fill(files, places[:2])),
        (ValueError, lambda: fill(files, places.T)),
        (TypeError, lambda: fill(files, places.tolist())),
        (TypeError, lambda: fill(list(files), places)),
        (TypeError, lambda: fill({0: None}, places)),
        (KeyError, lambda: fill({1: files[0]}, places)),
        (TypeError, lambda: fill(out=bytes(out))),
    ]
    for error, call in refused:
        with pytest.raises(error):
            call()
    assert not any(out)


def test_nothing_is_kept_of_what_it_was_given(tmp_path: Path) -> None:
    pictures = jpegs(40)
    pictures[::3] = [data[: len(data) // 2] for data in pictures[::3]]
    spots, process, memory = planted(tmp_path, pictures), psutil.Process(), 0
    files = MappedStore().sources(spots, 0, len(spots))
    held = sys.getrefcount(files[0])
    for number in range(200):
        filled(spots, LocalStore())
        filled(spots, MappedStore())
        if number == 50:
            memory = process.memory_info().rss
    assert process.memory_info().rss - memory < 4 * 2**20
    out = bytearray(len(spots) * SIZE * SIZE * 3)
    native.fill(files, spots.places, 0, len(spots), out, SIZE, b"", False)  # noqa: FBT003
    left = sys.getrefcount(files[0])  # an assert would add to it
    assert left == held
    out.clear()  # nobody holds on to it


def test_the_header_before_raw_pixels_is_numpys() -> None:
    for size in (1, 84, 224):
        stored = npy(np.zeros((size, size, 3), np.uint8))
        assert stored.startswith(npy_header(size))
        assert len(stored) == len(npy_header(size)) + size * size * 3
