"""Behind a URL, whatever the server does: the same bytes as on the local disk, or a clear error."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from pipeline.decoders.threads import ThreadedDecoder
from pipeline.errors import (
    IntegrityError,
    OutOfSpace,
    PipelineError,
    RunInterrupted,
    SourceMissing,
    UsageError,
)
from pipeline.shardset import ShardSet
from pipeline.store.fetch import RetryPolicy
from pipeline.store.local import LocalStore, SampleLocations, SampleStore, locate_samples
from pipeline.store.remote import RemoteStore
from tests.pipeline.decoders.planted import decode_all
from tests.pipeline.store.faulty_server import FAULTS, FaultyServer
from tests.pipeline.test_shardset import copy_renamed

ALL = np.arange(60)
QUICK = RetryPolicy(timeout=30, pause=0.01)  # seconds: a loaded machine is slow, and nothing stalls
IMPATIENT = RetryPolicy(timeout=0.4, pause=0.01, longest_pause=0.1, retries=20)


@pytest.fixture
def served(built: Path) -> Iterator[FaultyServer]:
    with FaultyServer(built.parent) as server:
        yield server


def open_pets(server: FaultyServer, cache: Path, **options: Any) -> ShardSet:
    return ShardSet.open(f"{server.url}/pets", **{"cache": cache, "patience": QUICK, **options})


def open_remote_store(shards: ShardSet) -> RemoteStore:
    store = shards.open_store()
    assert isinstance(store, RemoteStore)
    return store


def read_sample(store: SampleStore, locations: SampleLocations, at: int) -> bytes:
    data = bytearray(locations.lengths[at])
    store.read(locations, at, [memoryview(data)])
    return bytes(data)


def read_all(store: SampleStore, locations: SampleLocations) -> list[bytes]:
    return [read_sample(store, locations, at) for at in range(len(locations))]


def read_locally(built: Path, locations: SampleLocations) -> list[bytes]:
    """The same samples from the local shards."""
    [dataset] = ShardSet.open(built)
    here = locate_samples(dataset, locations.size, locations.rows)
    return read_all(LocalStore(), here)


def locate_all(shards: ShardSet, size: int = 48) -> SampleLocations:
    return locate_samples(shards["pets"], size, ALL)


def test_a_set_behind_a_url_cannot_be_mapped(served: FaultyServer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"only local shards can be mapped: leave mapped=True"):
        open_pets(served, tmp_path).open_store(mapped=True)


def test_every_sample_is_the_local_one(built: Path, served: FaultyServer, tmp_path: Path) -> None:
    shards = open_pets(served, tmp_path)
    store = open_remote_store(shards)
    for size in (24, 48):
        locations = locate_all(shards, size)
        store.prefetch(locations)
        assert read_all(store, locations) == read_locally(built, locations)
    assert store.stats.requests == len(served.ranges()) == 8  # one for each of two times four shards
    assert (store.stats.fetched, store.stats.read, store.stats.retries) == (120, 120, 0)
    store.close()


@pytest.mark.parametrize("bad", [(), (7, 30)])
def test_each_image_that_is_decoded_counts_as_read_once_and_lets_go_of_its_file(
    bad: tuple[int, ...], built: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(built, tmp_path / "served" / "pets")
    with FaultyServer(copy.parent) as server:
        shards = open_pets(server, tmp_path / "cache")
        store, locations = open_remote_store(shards), locate_all(shards)
        for at in bad:
            tar = copy / "48" / locations.file(at).name
            tar.write_bytes(flip_byte(tar.read_bytes(), locations.offsets[at] + 9))
        decoder = ThreadedDecoder(store, size=48, threads=2)
        store.prefetch(locations)
        images, faults = decode_all(decoder, locations)
        again, others = decode_all(decoder, locations)  # which nobody announced
        decoder.close()
    local = ThreadedDecoder(LocalStore(), size=48, threads=1)
    needed, _ = decode_all(local, locate_samples(ShardSet.open(built)["pets"], 48, ALL))
    local.close()
    needed[list(bad)] = 0
    assert torch.equal(images, needed)
    assert torch.equal(again, needed)
    assert [fault.at for fault in faults] == [fault.at for fault in others] == list(bad)
    assert store.stats.read == 2 * (60 - len(bad))
    assert not any(shard.announced for shard in store._cache._shards.values())
    store.close()


def flip_byte(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def test_samples_that_nobody_announced_come_too(built: Path, served: FaultyServer, tmp_path: Path) -> None:
    shards = open_pets(served, tmp_path)
    store, locations = open_remote_store(shards), locate_all(shards)
    assert read_sample(store, locations, 30) == read_locally(built, locations)[30]
    assert len(served.ranges()) == 1
    assert store.stats.bytes == locations.lengths[30]
    store.close()


def test_a_fifth_of_the_answers_are_faulty(built: Path, tmp_path: Path) -> None:
    """Rows one by one: hundreds of requests, and each kind of fault among them."""
    with FaultyServer(built.parent, share=0.2) as server:
        shards = open_pets(server, tmp_path, patience=IMPATIENT)
        store = open_remote_store(shards)
        for size in (24, 48):
            locations = locate_all(shards, size)
            for at in range(60):
                store.prefetch(locations.part(at, at + 1))
            assert read_all(store, locations) == read_locally(built, locations)
        store.close()
        assert set(server.made) == set(FAULTS)
        assert store.stats.retries == store.stats.requests - 120 > 10


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_in_manifest_and_index_are_retried(built: Path, tmp_path: Path, fault: str) -> None:
    with FaultyServer(built.parent, share=1.0, kinds=(fault,)) as server:
        server.most = 2
        shards = open_pets(server, tmp_path, patience=IMPATIENT)
        assert server.made[fault] == 4
    assert shards["pets"].manifest.text() == (built / "dataset.json").read_text()
    assert len(shards["pets"].index) == 60


def test_a_server_that_stalls_costs_a_timeout_and_no_more(served: FaultyServer, tmp_path: Path) -> None:
    shards = open_pets(served, tmp_path, patience=RetryPolicy(timeout=0.3, pause=0.01, retries=2))
    served.always[".tar"] = "stall"
    store, locations = open_remote_store(shards), locate_all(shards)
    started = time.monotonic()
    with pytest.raises(SourceMissing) as caught:
        read_sample(store, locations, 0)
    assert time.monotonic() - started >= 0.9
    assert len(served.ranges()) <= 3
    text = str(caught.value)
    assert f"{served.url}/pets/48/shard-000000.tar, bytes {locations.offsets[0]:,} to " in text
    assert "3 tries: no answer in 0.3 s; no answer in 0.3 s; no answer in 0.3 s" in text
    store.close()


@pytest.mark.parametrize(
    ("fault", "tries", "message"),
    [
        ("404", 1, "is not there; was the shard set moved"),
        ("403", 1, "access denied"),
        ("401", 1, "access denied"),
        ("400", 1, "the server refuses"),
        ("whole", 1, "ignores byte ranges"),
        ("503", 6, "6 tries: .*503; "),
        ("429", 6, "6 tries: .*429; "),
        ("reset", 6, "6 tries: Client"),
    ],
)
def test_errors_say_what_happened(
    served: FaultyServer, tmp_path: Path, fault: str, tries: int, message: str
) -> None:
    shards = open_pets(served, tmp_path)
    served.always[".tar"] = fault
    store, locations = open_remote_store(shards), locate_all(shards)
    with pytest.raises(SourceMissing, match=message):
        read_sample(store, locations, 0)
    assert len(served.ranges()) == tries
    store.prefetch(locations)
    with pytest.raises(SourceMissing, match=message):
        read_sample(store, locations, 59)
    store.close()


def test_a_sample_damaged_on_the_server_leaves_the_others(built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "served" / "pets")
    locations = locate_all(ShardSet.open(copy))
    tar = locations.file(7).read_bytes()
    middle = locations.offsets[7] + 9
    locations.file(7).write_bytes(tar[:middle] + bytes([tar[middle] ^ 1]) + tar[middle + 1 :])
    with FaultyServer(copy.parent) as server:
        shards = open_pets(server, tmp_path / "cache")
        store, locations, wanted = (
            open_remote_store(shards),
            locate_all(shards),
            read_locally(built, locations),
        )
        store.prefetch(locations)
        for at in range(60):
            if at != 7:
                assert read_sample(store, locations, at) == wanted[at]
        for _ in range(3):
            with pytest.raises(IntegrityError, match=r"damaged where it comes from: .* 3 times"):
                read_sample(store, locations, 7)
        assert len(server.ranges()) == 4 + 2  # four shards, and the damaged one twice more
        store.close()


def test_a_tar_truncated_on_the_server_still_gives_its_beginning(built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "served" / "pets")
    local = locate_all(ShardSet.open(copy))
    first = [at for at in range(60) if local.shards[at] == local.shards[0]]
    first.sort(key=lambda at: local.offsets[at])
    with local.file(0).open("r+b") as file:
        file.truncate(local.offsets[first[8]] + 10)
    with FaultyServer(copy.parent) as server:
        shards = open_pets(server, tmp_path / "cache")
        store, locations, wanted = (open_remote_store(shards), locate_all(shards), read_locally(built, local))
        store.prefetch(locations)
        assert [read_sample(store, locations, at) for at in first[:8]] == [wanted[at] for at in first[:8]]
        for at in first[8:]:
            with pytest.raises(IntegrityError, match=r"damaged where it comes from: .* came"):
                read_sample(store, locations, at)
        store.close()
        alone = open_remote_store(shards)
        with pytest.raises(IntegrityError, match="the file ends before that"):
            read_sample(alone, locations, first[-1])
        alone.close()


def test_a_second_run_finds_the_bytes(built: Path, served: FaultyServer, tmp_path: Path) -> None:
    for run in range(2):
        shards = open_pets(served, tmp_path)
        store, locations = open_remote_store(shards), locate_all(shards)
        store.prefetch(locations.part(0, 40))
        assert [read_sample(store, locations, at) for at in range(40)] == read_locally(built, locations)[:40]
        assert store.stats.hits == (40 if run else 0)
        store.close()
    assert max(served.asked[name] for name in served.ranges()) == 1
    assert len(served.ranges("index.parquet")) == 1  # the manifest says that it is the same
    assert len(served.ranges("dataset.json")) == 2


def test_an_index_that_changed_is_fetched_again(built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "served" / "pets")
    with FaultyServer(copy.parent) as server:
        [first] = open_pets(server, tmp_path / "cache")
        (first.root / "index.parquet").write_bytes(b"old")
        [second] = open_pets(server, tmp_path / "cache")
        assert len(second.index) == 60
        (copy / "index.parquet").write_bytes(b"not what the manifest says")
        (first.root / "index.parquet").unlink()
        with pytest.raises(IntegrityError, match=r"index\.parquet came 3 times .*sha256"):
            open_pets(server, tmp_path / "cache")


def test_stale_bytes_in_the_cache_are_replaced(built: Path, served: FaultyServer, tmp_path: Path) -> None:
    shards = open_pets(served, tmp_path)
    locations = locate_all(shards)
    for shard in range(4):
        tar = shards["pets"].tar(48, shard)
        tar.parent.mkdir(exist_ok=True)
        tar.write_bytes(b"of another build" * 5000)
    store = open_remote_store(shards)
    store.prefetch(locations)
    assert read_all(store, locations) == read_locally(built, locations)
    store.close()


def test_each_range_is_fetched_once_however_many_threads_want_it(
    built: Path, served: FaultyServer, tmp_path: Path
) -> None:
    shards = open_pets(served, tmp_path)
    store, locations, wanted = (
        open_remote_store(shards),
        locate_all(shards),
        read_locally(built, locate_all(shards)),
    )
    barrier = threading.Barrier(12)

    def work(seed: int) -> bool:
        barrier.wait()
        if seed % 3 == 0:
            store.prefetch(locations)
        order = np.random.default_rng(seed).permutation(60).tolist()
        return all(read_sample(store, locations, at) == wanted[at] for at in order)

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(work, range(12)))
    assert store.stats.fetched == 60
    assert store.stats.read == 12 * 60
    store.close()


def on_disk(folder: Path) -> int:
    return sum(tar.stat().st_blocks * 512 for tar in folder.rglob("*.tar"))


def test_the_cache_stays_below_its_limit(built: Path, served: FaultyServer, tmp_path: Path) -> None:
    limit = 110_000  # two shards, which is what a part of six may need, and not three
    shards = open_pets(served, tmp_path, cache_bytes=limit)
    store, locations = open_remote_store(shards), locate_all(shards, 24)
    for _ in range(3):
        for begin in range(0, 60, 6):
            part = locations.part(begin, begin + 6)
            store.prefetch(part)
            assert read_all(store, part) == read_locally(built, part)
            assert on_disk(tmp_path) <= limit
    assert store.stats.evicted >= 6
    store.close()
    tighter = open_remote_store(open_pets(served, tmp_path, cache_bytes=1))
    assert (
        read_sample(tighter, locations, 0) == read_locally(built, locations)[0]
    )  # what an earlier run left makes room
    assert len(list(tmp_path.rglob("*.tar"))) == 1
    tighter.close()


def test_what_was_announced_stays_until_it_was_read(
    built: Path, served: FaultyServer, tmp_path: Path
) -> None:
    shards = open_pets(served, tmp_path, cache_bytes=1)
    store, locations = open_remote_store(shards), locate_all(shards)
    store.prefetch(locations)
    while store.stats.fetched < 60:
        time.sleep(0.01)
    assert len(list(tmp_path.rglob("*.tar"))) == 4
    assert read_all(store, locations) == read_locally(built, locations)
    assert (len(served.ranges()), store.stats.evicted) == (4, 0)
    again = locate_samples(shards["pets"], 24, ALL)
    assert read_sample(store, again, 0) == read_locally(built, again)[0]
    assert store.stats.evicted == 4
    store.close()


def test_a_cache_that_others_empty_is_filled_again(built: Path, served: FaultyServer, tmp_path: Path) -> None:
    shards = open_pets(served, tmp_path)
    store, locations, wanted = (
        open_remote_store(shards),
        locate_all(shards),
        read_locally(built, locate_all(shards)),
    )
    for _ in range(3):
        store.prefetch(locations)
        assert read_all(store, locations) == wanted
        for tar in tmp_path.rglob("*.tar"):
            tar.unlink()
    store.close()
    assert not list(tmp_path.rglob("*.tar"))  # the open files were still good
    fresh = open_remote_store(shards)
    fresh.prefetch(locations.part(0, 20))
    assert [read_sample(fresh, locations, at) for at in range(20)] == wanted[:20]
    for tar in tmp_path.rglob("*.tar"):
        tar.unlink()
    assert read_all(fresh, locations) == wanted
    fresh.close()


def test_threads_read_right_from_a_cache_that_is_too_small(
    built: Path, served: FaultyServer, tmp_path: Path
) -> None:
    shards = open_pets(served, tmp_path, cache_bytes=1)
    store, locations, wanted = (
        open_remote_store(shards),
        locate_all(shards),
        read_locally(built, locate_all(shards)),
    )

    def work(seed: int) -> bool:
        draws = np.random.default_rng(seed)
        for _ in range(6):
            picked = draws.integers(0, 60, 8).tolist()
            part = locations.pick(picked)
            if seed % 2:
                store.prefetch(part)
            if any(read_sample(store, part, at) != wanted[picked[at]] for at in range(8)):
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
    assert store.stats.evicted > 0
    store.close()


def test_a_full_disk_is_named(served: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    shards = open_pets(served, tmp_path)
    store, locations = open_remote_store(shards), locate_all(shards)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutOfSpace, match=rf"disk of {tmp_path} is full .* smaller limit"):
        read_sample(store, locations, 0)
    monkeypatch.undo()
    assert len(read_sample(store, locations, 0)) == locations.lengths[0]
    store.close()


READER = """
import sys, numpy as np
from pipeline.shardset import ShardSet
from pipeline.store.local import locate_samples
shards = ShardSet.open(sys.argv[1], cache=sys.argv[2], cache_bytes=60_000)
store, locations = shards.open_store(), locate_samples(shards["pets"], 24, np.arange(60))
for number in range(3):
    for begin in range(0, 60, 10):
        store.prefetch(locations.part(begin, begin + 10))
        for at in range(begin, begin + 10):
            store.read(locations, at, [memoryview(bytearray(locations.lengths[at]))])
store.close()
print("all", store.stats.read)
"""


def test_two_processes_share_a_cache_that_is_too_small(served: FaultyServer, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", READER, f"{served.url}/pets", str(tmp_path)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in running:
        out, err = process.communicate(timeout=60)
        assert (out, err) == ("all 180\n", "")


def test_a_closed_store_gives_up_at_once(served: FaultyServer, tmp_path: Path) -> None:
    shards = open_pets(served, tmp_path, patience=RetryPolicy(timeout=60))
    served.always[".tar"] = "stall"
    before = threading.active_count()
    store, locations = open_remote_store(shards), locate_all(shards)
    store.prefetch(locations)
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            read_sample(store, locations, 0)
        except PipelineError as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not served.ranges():
        time.sleep(0.01)
    started = time.monotonic()
    store.close()
    waiting.join(30)
    assert time.monotonic() - started < 30  # not a minute, six times
    assert [type(failure) for failure in failures] == [RunInterrupted]
    served.stopped.set()
    with pytest.raises(RunInterrupted, match="the store was closed"):
        read_sample(store, locations, 0)
    store.prefetch(locations)
    assert threading.active_count() <= before + 20  # the server's own


def test_the_users_random_numbers_are_left_alone(built: Path, tmp_path: Path) -> None:
    def draw() -> tuple[float, float]:
        return random.random(), np.random.random()  # noqa: NPY002 - the global state is the point

    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    wanted = [draw(), draw()]
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    found = [draw()]
    with FaultyServer(built.parent, share=1.0, kinds=("500",)) as server:
        shards = open_pets(server, tmp_path)
        store, locations = open_remote_store(shards), locate_all(shards)
        store.prefetch(locations)
        assert read_all(store, locations) == read_locally(built, locations)
        store.close()
    assert server.made["500"] > 0
    assert [*found, draw()] == wanted


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_any_filesystem_will_do(built: Path, tmp_path: Path, protocol: str) -> None:
    url = f"memory://{tmp_path.name}" if protocol == "memory" else f"file://{tmp_path}/there"
    fs, root = fsspec.core.url_to_fs(url)
    for name in "ab":
        copy = copy_renamed(built, tmp_path / "copy" / name, name)
        fs.put(f"{copy}/", f"{root}/{name}/", recursive=True)
    shards = ShardSet.open(url, cache=tmp_path / "cache", patience=QUICK)
    assert list(shards.datasets) == ["a", "b"]
    store = open_remote_store(shards)
    for dataset in shards:
        locations = locate_samples(dataset, 48, ALL)
        store.prefetch(locations)
        assert read_all(store, locations) == read_locally(built, locations)
    fs.rm(f"{root}/b/48/shard-000001.tar")
    store.close()
    other = ShardSet.open(url, cache=tmp_path / "empty", patience=QUICK)
    store, locations = open_remote_store(other), locate_samples(other["b"], 48, ALL)
    with pytest.raises(SourceMissing, match=r"b/48/shard-000001\.tar, bytes .* is not there"):
        read_sample(store, locations, locations.shards.index(1))
    store.close()


def test_a_folder_behind_http_is_listed(built: Path, tmp_path: Path) -> None:
    for name in "ab":
        copy_renamed(built, tmp_path / "served" / name, name)
    (tmp_path / "served" / "notes").mkdir()
    with FaultyServer(tmp_path / "served") as server:
        shards = ShardSet.open(server.url, cache=tmp_path / "cache", patience=QUICK)
        assert list(shards.datasets) == ["a", "b"]
        server.lists = False
        with pytest.raises(SourceMissing, match=r"nor a listing of folders .* a list of URLs"):
            ShardSet.open(server.url, cache=tmp_path / "cache", patience=QUICK)
        urls = [f"{server.url}/a", f"{server.url}/b/"]
        assert len(ShardSet.open(urls, cache=tmp_path / "cache", patience=QUICK)) == 2


def test_local_and_remote_datasets_are_one_set(built: Path, served: FaultyServer, tmp_path: Path) -> None:
    here = copy_renamed(built, tmp_path / "here", "ants")
    shards = ShardSet.open([here, f"{served.url}/pets"], cache=tmp_path / "cache", patience=QUICK)
    store = open_remote_store(shards)
    for dataset in shards:
        locations = locate_samples(dataset, 24, ALL)
        store.prefetch(locations)
        assert read_all(store, locations) == read_locally(built, locations)
    assert store.stats.fetched == 60
    store.close()


def test_an_unfinished_foreign_or_absent_dataset_is_an_error(built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "served" / "pets")
    whole = (copy / "dataset.json").read_text()
    with FaultyServer(tmp_path / "served") as server:
        with pytest.raises(SourceMissing, match="neither a dataset"):
            ShardSet.open(f"{server.url}/pets/24", cache=tmp_path / "cache", patience=QUICK)
        with pytest.raises(SourceMissing, match="nowhere/ is not there"):
            ShardSet.open(f"{server.url}/nowhere", cache=tmp_path / "cache", patience=QUICK)
        (copy / "dataset.json").unlink()
        for url in (server.url, f"{server.url}/pets"):
            with pytest.raises(SourceMissing, match=r"pets is a build that has not finished"):
                ShardSet.open(url, cache=tmp_path / "cache", patience=QUICK)
        (copy / "dataset.json").write_text(whole.replace('"format": 1', '"format": 99'))
        with pytest.raises(IntegrityError, match="has format 99 and this version reads 1"):
            ShardSet.open(server.url, cache=tmp_path / "cache", patience=QUICK)
        (copy / "dataset.json").write_text("<html>Welcome</html>")
        with pytest.raises(IntegrityError, match=r"dataset\.json came 3 times .* is damaged"):
            ShardSet.open(server.url, cache=tmp_path / "cache", patience=QUICK)
        server.always["dataset.json"] = "403"
        with pytest.raises(SourceMissing, match="access denied"):
            ShardSet.open(server.url, cache=tmp_path / "cache", patience=QUICK)


def test_a_protocol_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nosuch://x/y cannot be opened: Protocol not known"):
        ShardSet.open("nosuch://x/y", cache=tmp_path)


def test_without_fsspec_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "fsspec.py").write_text("raise ImportError('none here')\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from pipeline.shardset import ShardSet\n"
        "try: ShardSet.open('https://example.org/x')\n"
        "except Exception as error: print(error)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "https://example.org/x needs fsspec: pip install -e '.[remote]'\n"


def test_the_cache_is_where_caches_are(
    built: Path, served: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shards = open_pets(served, None)  # type: ignore[arg-type]
    assert shards["pets"].root.parent == tmp_path / "lite-shards" / "remote"
    assert shards["pets"].root.name.startswith("pets-")
