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
from pipeline.store.files import FilePool, preadv_fallback
from pipeline.store.local import LocalStore, SampleLocations, locate_samples, merge_ranges
from pipeline.store.mapped import MappedFile, MappedStore

ALL = np.arange(60)
ROOT = Path(__file__).resolve().parents[3]
STORES = [LocalStore, MappedStore]
both = pytest.mark.parametrize("kind", STORES)


def read_sample(store: LocalStore, locations: SampleLocations, at: int) -> bytes:
    data = bytearray(locations.lengths[at])
    store.read(locations, at, [memoryview(data)])
    return bytes(data)


def read_from_tar(locations: SampleLocations, at: int) -> bytes:
    begin = locations.offsets[at]
    return locations.file(at).read_bytes()[begin : begin + locations.lengths[at]]


def count_open_files(folder: Path) -> int:
    """Those of this folder alone: what other tests left open may be closed at any time."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found += entry.readlink().is_relative_to(folder)
    return found


def count_mappings(folder: Path) -> int:
    """Mappings of files in this folder, in the memory of this process."""
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


def write_many_shards(built: Path, folder: Path, count: int) -> SampleLocations:
    """Write so many shards of one sample each."""
    (folder / "24").mkdir(parents=True)
    dataset = Dataset.open(built)
    parts = [bytes([number % 256]) * (50 + number) for number in range(count)]
    for number, part in enumerate(parts):
        (folder / "24" / f"shard-{number:06d}.tar").write_bytes(b"before" + part + b"after")
    table = [(number, 6, len(part), zlib.crc32(part)) for number, part in enumerate(parts)]
    return SampleLocations(
        Dataset(folder, dataset.manifest, dataset.index), 24, np.zeros(count, np.int64),
        np.array(table), str(folder / "24"),
    )  # fmt: skip


@both
@pytest.mark.parametrize("size", [24, 48])
def test_every_sample_is_what_the_tar_holds(built: Path, size: int, kind: type[LocalStore]) -> None:
    locations = locate_samples(Dataset.open(built), size, ALL[::-1].copy())
    store = kind()
    store.prefetch(locations)
    assert [read_sample(store, locations, at) for at in range(60)] == [
        read_from_tar(locations, a) for a in range(60)
    ]
    store.close()


@both
def test_the_bytes_go_on_from_one_buffer_to_the_next(built: Path, kind: type[LocalStore]) -> None:
    locations = locate_samples(Dataset.open(built), 24, ALL)
    header, pixels = bytearray(128), np.zeros((24, 24, 3), np.uint8)
    kind().read(locations, 7, [memoryview(header), memoryview(pixels.reshape(-1).data)])
    assert bytes(header) + pixels.tobytes() == read_from_tar(locations, 7)


def test_parts_and_picks_are_the_same_samples(built: Path) -> None:
    locations = locate_samples(Dataset.open(built), 48, ALL)
    assert locations.part(10, 13).crcs == locations.pick([10, 11, 12]).crcs == locations.crcs[10:13]
    assert locations.part(10, 13).rows.tolist() == locations.pick([10, 11, 12]).rows.tolist()
    assert len(locations.part(10, 13)) == 3
    assert (str(locations.encoding), str(locate_samples(locations.dataset, 24, ALL).encoding)) == (
        "jpeg:95",
        "raw",
    )


def test_a_size_that_was_not_built_names_those_that_were(built: Path) -> None:
    with pytest.raises(UsageError, match=r"dataset pets has pictures of 24, 48 pixels and 84 are"):
        locate_samples(Dataset.open(built), 84, ALL)


@both
def test_a_damaged_sample_is_named_and_its_neighbours_are_read(
    built: Path, tmp_path: Path, kind: type[LocalStore]
) -> None:
    copy = Dataset.open(shutil.copytree(built, tmp_path / "copy"))
    locations = locate_samples(copy, 48, ALL)
    store, path = kind(), locations.file(3)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[locations.offsets[3] + 5] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(IntegrityError, match=r"sample 0+\d+ .*48/shard-0.*crc32 differs.*--repair"):
        read_sample(store, locations, 3)
    assert read_sample(store, locations, 4) == read_from_tar(locations, 4)
    os.truncate(path, locations.offsets[3] + 10)
    with pytest.raises(IntegrityError, match=rf"ends after 10 of {locations.lengths[3]:,} bytes"):
        read_sample(store, locations, 3)
    (tmp_path / "mended").write_bytes(whole)
    (tmp_path / "mended").rename(path)  # as a repair does, while we run
    assert read_sample(store, locations, 3) == read_from_tar(locations, 3)


@both
def test_a_shard_that_is_gone_is_named(built: Path, tmp_path: Path, kind: type[LocalStore]) -> None:
    locations = locate_samples(Dataset.open(shutil.copytree(built, tmp_path / "copy")), 24, ALL)
    locations.file(0).unlink()
    store = kind()
    store.prefetch(locations)  # says nothing
    with pytest.raises(SourceMissing, match=r"shard-000000\.tar\) is needed and the file is gone"):
        read_sample(store, locations, 0)


@both
def test_a_file_that_cannot_be_opened_is_an_error_of_each_of_its_samples(
    built: Path, tmp_path: Path, kind: type[LocalStore]
) -> None:
    locations = locate_samples(Dataset.open(shutil.copytree(built, tmp_path / "copy")), 48, ALL)
    locations.file(3).unlink()
    locations.file(3).symlink_to(locations.file(3).name)  # a link to itself: neither there nor gone
    store = kind()
    for at in (3, 4):
        with pytest.raises(IntegrityError, match=r"cannot be read: .*symbolic links"):
            read_sample(store, locations, at)
    assert read_sample(store, locations, 59) == read_from_tar(locations, 59)


@both
def test_a_short_read_is_an_error_whatever_the_buffers_held(
    built: Path, tmp_path: Path, kind: type[LocalStore]
) -> None:
    locations = locate_samples(Dataset.open(shutil.copytree(built, tmp_path / "copy")), 48, ALL)
    store, data = kind(), memoryview(bytearray(locations.lengths[3]))
    store.read(locations, 3, [data])
    os.truncate(locations.file(3), locations.offsets[3])
    with pytest.raises(IntegrityError, match=r"ends after 0 of"):
        store.read(locations, 3, [data])


def test_views_yield_the_error_of_a_damaged_sample_and_go_on(built: Path, tmp_path: Path) -> None:
    locations = locate_samples(Dataset.open(shutil.copytree(built, tmp_path / "copy")), 48, ALL)
    last = next(at for at in range(60) if locations.shards[at] != locations.shards[0]) - 1
    with locations.file(2).open("r+b") as file:
        file.seek(locations.offsets[2] + 9)
        file.write(b"\0\0\0")
    os.truncate(locations.file(last), locations.offsets[last] + 1)
    found = list(MappedStore().views(locations, range(1, last + 2)))
    bad = [at for at, data in enumerate(found, 1) if isinstance(data, IntegrityError)]
    assert bad == [2, last]
    sound = {at: bytes(data) for at, data in enumerate(found, 1) if isinstance(data, memoryview)}
    assert sound == {at: read_from_tar(locations, at) for at in range(1, last + 2) if at not in bad}


def test_what_was_lent_stays_readable_and_then_nothing_is_left(built: Path, tmp_path: Path) -> None:
    locations = locate_samples(Dataset.open(shutil.copytree(built, tmp_path / "copy")), 48, ALL)
    needed, store, folder = read_from_tar(locations, 0), MappedStore(), Path(locations.folder)
    (view,) = store.views(locations, [0])
    locations.file(0).unlink()
    store.close()
    assert (count_open_files(folder), count_mappings(folder)) == (1, 1)
    assert isinstance(view, memoryview)
    assert bytes(view) == needed
    del view
    assert (count_open_files(folder), count_mappings(folder)) == (0, 0)


def read_with_few_files(built: Path, folder: Path, mapped: str) -> None:
    """In a process of its own: the limit is the process's."""
    locations = write_many_shards(built, folder, 300)
    for soft, most in ((256, 64), (100, 25)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        store = MappedStore() if mapped else LocalStore()
        store.prefetch(locations)
        for at in (*range(300), *range(0, 300, 7)):
            assert read_sample(store, locations, at) == read_from_tar(locations, at)
            assert 0 < count_open_files(folder) <= most
            assert 2 * count_mappings(folder) <= (most if mapped else 0)
        store.close()
        assert count_open_files(folder) == count_mappings(folder) == 0


@pytest.mark.parametrize("mapped", ["mapped", ""])
def test_few_files_are_open_whatever_the_number_of_shards(built: Path, tmp_path: Path, mapped: str) -> None:
    program = (
        "import sys, pathlib; from tests.pipeline.store.test_local import read_with_few_files\n"
        "read_with_few_files(*map(pathlib.Path, sys.argv[1:3]), sys.argv[3])"
    )
    command = [sys.executable, "-c", program, str(built), str(tmp_path), mapped]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_is_used_all_the_time_stays_open(built: Path, tmp_path: Path) -> None:
    locations = write_many_shards(built, tmp_path, 9)
    files = FilePool(most=3)
    store = LocalStore(files)
    read_sample(store, locations, 0)
    first = files.open[locations.folder, 0]
    for at in range(1, 9):
        read_sample(store, locations, at)
        read_sample(store, locations, 0)
    assert files.open[locations.folder, 0] is first


@pytest.mark.parametrize(
    "store", [LocalStore(FilePool(most=2)), MappedStore(FilePool(most=2, kind=MappedFile))]
)
def test_no_thread_closes_a_file_under_another(built: Path, tmp_path: Path, store: LocalStore) -> None:
    locations = write_many_shards(built, tmp_path, 12)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for at in np.random.default_rng(seed).integers(0, 12, 400).tolist():
                assert read_sample(store, locations, at) == bytes([at]) * (50 + at)
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert 0 < count_open_files(tmp_path) <= 4
    assert count_mappings(tmp_path) <= 2
    store.close()
    assert count_open_files(tmp_path) == count_mappings(tmp_path) == 0


def test_ranges_are_few_sorted_and_hold_every_sample_once(built: Path) -> None:
    locations = locate_samples(Dataset.open(built), 48, np.random.default_rng(0).permutation(ALL))
    for gap, most in ((64 * 2**10, 4 * 2**20), (0, 2**20), (2000, 2000), (10**9, 1)):
        found = list(merge_ranges(locations, gap, most))
        assert sorted(at for region in found for at in region.members) == ALL.tolist()
        assert [(r.shard, r.begin) for r in found] == sorted((r.shard, r.begin) for r in found)
        for region in found:
            assert len(region.members) == 1 or region.end - region.begin <= most
            for at in region.members:
                assert region.shard == locations.shards[at]
                assert region.begin <= locations.offsets[at]
                assert locations.offsets[at] + locations.lengths[at] <= region.end
    assert len(list(merge_ranges(locations))) == 4  # a shard of this set is shorter than a range
    assert len(list(merge_ranges(locations, 10**9, 1))) == 60
    assert list(merge_ranges(locations.part(0, 0))) == []


def test_rows_that_occur_twice_are_one_range(built: Path) -> None:
    locations = locate_samples(Dataset.open(built), 24, np.array([5, 5, 6]))
    [region] = merge_ranges(locations)
    assert sorted(region.members) == [0, 1, 2]


def test_systems_without_preadv_read_the_same(built: Path) -> None:
    locations = locate_samples(Dataset.open(built), 24, ALL)
    with locations.file(2).open("rb") as file:
        parts = [bytearray(100), bytearray(locations.lengths[2] - 100)]
        found = preadv_fallback(file.fileno(), [memoryview(part) for part in parts], locations.offsets[2])
        assert found == locations.lengths[2]
        assert b"".join(parts) == read_from_tar(locations, 2)
        end = locations.file(2).stat().st_size
        assert preadv_fallback(file.fileno(), [memoryview(bytearray(100))], end - 30) == 30


@both
def test_prefetch_reads_what_is_not_in_memory_and_nothing_else(built: Path, kind: type[LocalStore]) -> None:
    dataset = Dataset.open(built)
    locations = locate_samples(dataset, 48, np.arange(60))
    store = kind()
    try:
        for tar in (built / "48").glob("*.tar"):
            with tar.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        store.prefetch(locations)
        deadline = time.monotonic() + 10
        while not store._in_memory(locations) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert store._in_memory(locations)
    finally:
        store.close()
