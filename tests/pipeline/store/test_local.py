"""A sample's bytes are right, or there is an error that says which sample, which file and why."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.index import Dataset
from pipeline.store.files import Files, read_plainly
from pipeline.store.local import LocalStore, Spots, regions, spots_of
from pipeline.store.mapped import MappedFile, MappedStore

ALL = np.arange(60)
ROOT = Path(__file__).resolve().parents[2]
STORES = [LocalStore, MappedStore]
both = pytest.mark.parametrize("kind", STORES)


def read(store: LocalStore, spots: Spots, at: int) -> bytes:
    data = bytearray(spots.lengths[at])
    store.read(spots, at, [memoryview(data)])
    return bytes(data)


def in_the_tar(spots: Spots, at: int) -> bytes:
    begin = spots.offsets[at]
    return spots.file(at).read_bytes()[begin : begin + spots.lengths[at]]


def open_files(folder: Path) -> int:
    """Of this folder: what other tests left open may be closed at any time."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found += entry.readlink().is_relative_to(folder)
    return found


def mappings(folder: Path) -> int:
    """Of files in this folder, in the memory of this process."""
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


def many_files(built: Path, folder: Path, count: int) -> Spots:
    """One sample in each of so many files."""
    (folder / "24").mkdir(parents=True)
    dataset = Dataset.open(built)
    parts = [bytes([number % 256]) * (50 + number) for number in range(count)]
    for number, part in enumerate(parts):
        (folder / "24" / f"shard-{number:06d}.tar").write_bytes(b"before" + part + b"after")
    places = [(number, 6, len(part), zlib.crc32(part)) for number, part in enumerate(parts)]
    return Spots(
        Dataset(folder, dataset.manifest, dataset.index), 24, np.zeros(count, np.int64),
        np.array(places), str(folder / "24"),
    )  # fmt: skip


@both
@pytest.mark.parametrize("size", [24, 48])
def test_every_sample_is_what_the_tar_holds(built: Path, size: int, kind: type[LocalStore]) -> None:
    spots = spots_of(Dataset.open(built), size, ALL[::-1].copy())
    store = kind()
    store.prefetch(spots)
    assert [read(store, spots, at) for at in range(60)] == [in_the_tar(spots, a) for a in range(60)]
    store.close()


@both
def test_the_bytes_go_on_from_one_buffer_to_the_next(built: Path, kind: type[LocalStore]) -> None:
    spots = spots_of(Dataset.open(built), 24, ALL)
    header, pixels = bytearray(128), np.zeros((24, 24, 3), np.uint8)
    kind().read(spots, 7, [memoryview(header), memoryview(pixels.reshape(-1).data)])
    assert bytes(header) + pixels.tobytes() == in_the_tar(spots, 7)


def test_parts_and_picks_are_the_same_samples(built: Path) -> None:
    spots = spots_of(Dataset.open(built), 48, ALL)
    assert spots.part(10, 13).crcs == spots.pick([10, 11, 12]).crcs == spots.crcs[10:13]
    assert spots.part(10, 13).rows.tolist() == spots.pick([10, 11, 12]).rows.tolist()
    assert len(spots.part(10, 13)) == 3
    assert (str(spots.encoding), str(spots_of(spots.dataset, 24, ALL).encoding)) == (
        "jpeg:95",
        "raw",
    )


def test_a_size_that_was_not_built_names_those_that_were(built: Path) -> None:
    with pytest.raises(UsageError, match=r"dataset pets has pictures of 24, 48 pixels and 84 are"):
        spots_of(Dataset.open(built), 84, ALL)


@both
def test_a_damaged_sample_is_named_and_its_neighbours_are_read(
    built: Path, tmp_path: Path, kind: type[LocalStore]
) -> None:
    copy = Dataset.open(shutil.copytree(built, tmp_path / "copy"))
    spots = spots_of(copy, 48, ALL)
    store, path = kind(), spots.file(3)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[spots.offsets[3] + 5] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(IntegrityError, match=r"sample 0+\d+ .*48/shard-0.*crc32 differs.*--repair"):
        read(store, spots, 3)
    assert read(store, spots, 4) == in_the_tar(spots, 4)
    os.truncate(path, spots.offsets[3] + 10)
    with pytest.raises(IntegrityError, match=rf"ends after 10 of {spots.lengths[3]:,} bytes"):
        read(store, spots, 3)
    (tmp_path / "mended").write_bytes(whole)
    (tmp_path / "mended").rename(path)  # as a repair does, while we run
    assert read(store, spots, 3) == in_the_tar(spots, 3)


@both
def test_a_shard_that_is_gone_is_named(built: Path, tmp_path: Path, kind: type[LocalStore]) -> None:
    spots = spots_of(Dataset.open(shutil.copytree(built, tmp_path / "copy")), 24, ALL)
    spots.file(0).unlink()
    store = kind()
    store.prefetch(spots)  # says nothing
    with pytest.raises(SourceMissing, match=r"shard-000000\.tar\) is needed and the file is gone"):
        read(store, spots, 0)


@both
def test_a_file_that_cannot_be_opened_is_an_error_of_each_of_its_samples(
    built: Path, tmp_path: Path, kind: type[LocalStore]
) -> None:
    spots = spots_of(Dataset.open(shutil.copytree(built, tmp_path / "copy")), 48, ALL)
    spots.file(3).unlink()
    spots.file(3).symlink_to(spots.file(3).name)  # a link to itself: neither there nor gone
    store = kind()
    for at in (3, 4):
        with pytest.raises(IntegrityError, match=r"cannot be read: .*symbolic links"):
            read(store, spots, at)
    assert read(store, spots, 59) == in_the_tar(spots, 59)


@both
def test_a_short_read_is_an_error_whatever_the_buffers_held(
    built: Path, tmp_path: Path, kind: type[LocalStore]
) -> None:
    spots = spots_of(Dataset.open(shutil.copytree(built, tmp_path / "copy")), 48, ALL)
    store, data = kind(), memoryview(bytearray(spots.lengths[3]))
    store.read(spots, 3, [data])
    os.truncate(spots.file(3), spots.offsets[3])
    with pytest.raises(IntegrityError, match=r"ends after 0 of"):
        store.read(spots, 3, [data])


def test_views_name_what_is_wrong_in_its_place_and_go_on(built: Path, tmp_path: Path) -> None:
    spots = spots_of(Dataset.open(shutil.copytree(built, tmp_path / "copy")), 48, ALL)
    last = next(at for at in range(60) if spots.shards[at] != spots.shards[0]) - 1
    with spots.file(2).open("r+b") as file:
        file.seek(spots.offsets[2] + 9)
        file.write(b"\0\0\0")
    os.truncate(spots.file(last), spots.offsets[last] + 1)
    found = list(MappedStore().views(spots, range(1, last + 2)))
    bad = [at for at, data in enumerate(found, 1) if isinstance(data, IntegrityError)]
    assert bad == [2, last]
    sound = {at: bytes(data) for at, data in enumerate(found, 1) if isinstance(data, memoryview)}
    assert sound == {at: in_the_tar(spots, at) for at in range(1, last + 2) if at not in bad}


def test_what_was_lent_stays_readable_and_then_nothing_is_left(built: Path, tmp_path: Path) -> None:
    spots = spots_of(Dataset.open(shutil.copytree(built, tmp_path / "copy")), 48, ALL)
    needed, store, folder = in_the_tar(spots, 0), MappedStore(), Path(spots.folder)
    (view,) = store.views(spots, [0])
    spots.file(0).unlink()
    store.close()
    assert (open_files(folder), mappings(folder)) == (1, 1)
    assert isinstance(view, memoryview)
    assert bytes(view) == needed
    del view
    assert (open_files(folder), mappings(folder)) == (0, 0)


def read_with_few_files(built: Path, folder: Path, mapped: str) -> None:
    """In a process of its own: the limit is the process's."""
    spots = many_files(built, folder, 300)
    for soft, most in ((256, 64), (100, 25)):
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )
        store = MappedStore() if mapped else LocalStore()
        store.prefetch(spots)
        for at in (*range(300), *range(0, 300, 7)):
            assert read(store, spots, at) == in_the_tar(spots, at)
            assert 0 < open_files(folder) <= most
            assert 2 * mappings(folder) <= (most if mapped else 0)
        store.close()
        assert open_files(folder) == mappings(folder) == 0


@pytest.mark.parametrize("mapped", ["mapped", ""])
def test_few_files_are_open_whatever_the_number_of_shards(
    built: Path, tmp_path: Path, mapped: str
) -> None:
    program = (
        "import sys, pathlib; from tests.pipeline.store.test_local import read_with_few_files\n"
        "read_with_few_files(*map(pathlib.Path, sys.argv[1:3]), sys.argv[3])"
    )
    command = [sys.executable, "-c", program, str(built), str(tmp_path), mapped]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_is_used_all_the_time_stays_open(built: Path, tmp_path: Path) -> None:
    spots = many_files(built, tmp_path, 9)
    files = Files(most=3)
    store = LocalStore(files)
    read(store, spots, 0)
    first = files.open[spots.folder, 0]
    for at in range(1, 9):
        read(store, spots, at)
        read(store, spots, 0)
    assert files.open[spots.folder, 0] is first


@pytest.mark.parametrize(
    "store", [LocalStore(Files(most=2)), MappedStore(Files(most=2, kind=MappedFile))]
)
def test_no_thread_closes_a_file_under_another(
    built: Path, tmp_path: Path, store: LocalStore
) -> None:
    spots = many_files(built, tmp_path, 12)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for at in np.random.default_rng(seed).integers(0, 12, 400).tolist():
                assert read(store, spots, at) == bytes([at]) * (50 + at)
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert 0 < open_files(tmp_path) <= 4
    assert mappings(tmp_path) <= 2
    store.close()
    assert open_files(tmp_path) == mappings(tmp_path) == 0


def test_regions_are_few_sorted_and_hold_every_sample_once(built: Path) -> None:
    spots = spots_of(Dataset.open(built), 48, np.random.default_rng(0).permutation(ALL))
    for gap, most in ((64 * 2**10, 4 * 2**20), (0, 2**20), (2000, 2000), (10**9, 1)):
        found = list(regions(spots, gap, most))
        assert sorted(at for region in found for at in region.members) == ALL.tolist()
        assert [(r.shard, r.begin) for r in found] == sorted((r.shard, r.begin) for r in found)
        for region in found:
            assert len(region.members) == 1 or region.end - region.begin <= most
            for at in region.members:
                assert region.shard == spots.shards[at]
                assert region.begin <= spots.offsets[at]
                assert spots.offsets[at] + spots.lengths[at] <= region.end
    assert len(list(regions(spots))) == 4  # a shard of this set is shorter than a region
    assert len(list(regions(spots, 10**9, 1))) == 60
    assert list(regions(spots.part(0, 0))) == []


def test_rows_that_occur_twice_are_one_stretch(built: Path) -> None:
    spots = spots_of(Dataset.open(built), 24, np.array([5, 5, 6]))
    [region] = regions(spots)
    assert sorted(region.members) == [0, 1, 2]


def test_systems_without_preadv_read_the_same(built: Path) -> None:
    spots = spots_of(Dataset.open(built), 24, ALL)
    with spots.file(2).open("rb") as file:
        parts = [bytearray(100), bytearray(spots.lengths[2] - 100)]
        found = read_plainly(file.fileno(), [memoryview(part) for part in parts], spots.offsets[2])
        assert found == spots.lengths[2]
        assert b"".join(parts) == in_the_tar(spots, 2)
        end = spots.file(2).stat().st_size
        assert read_plainly(file.fileno(), [memoryview(bytearray(100))], end - 30) == 30


@both
def test_a_hint_reads_nothing_that_is_in_memory_and_brings_what_is_not(
    built: Path, kind: type[LocalStore]
) -> None:
    dataset = Dataset.open(built)
    spots = spots_of(dataset, 48, np.arange(60))
    store = kind()
    try:
        for tar in (built / "48").glob("*.tar"):
            with tar.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        store.prefetch(spots)
        deadline = time.monotonic() + 10
        while not store._in_memory(spots) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert store._in_memory(spots)
    finally:
        store.close()
