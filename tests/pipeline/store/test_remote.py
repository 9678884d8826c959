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

from pipeline.decoders.threads import Threads
from pipeline.errors import (
    IntegrityError,
    Interrupted,
    OutOfSpace,
    PipelineError,
    SourceMissing,
    UsageError,
)
from pipeline.shardset import ShardSet
from pipeline.store.fetch import Patience
from pipeline.store.local import LocalStore, Spots, Store, spots_of
from pipeline.store.remote import RemoteStore
from tests.pipeline.decoders.planted import decoded
from tests.pipeline.store.faulty_server import FAULTS, Server
from tests.pipeline.test_shardset import renamed

ALL = np.arange(60)
QUICK = Patience(timeout=0.4, pause=0.01)


@pytest.fixture
def served(built: Path) -> Iterator[Server]:
    with Server(built.parent) as server:
        yield server


def opened(server: Server, cache: Path, **options: Any) -> ShardSet:
    return ShardSet.open(f"{server.url}/pets", **{"cache": cache, "patience": QUICK, **options})


def store_of(shards: ShardSet) -> RemoteStore:
    store = shards.open_store()
    assert isinstance(store, RemoteStore)
    return store


def read(store: Store, spots: Spots, at: int) -> bytes:
    data = bytearray(spots.lengths[at])
    store.read(spots, at, [memoryview(data)])
    return bytes(data)


def right(built: Path, spots: Spots) -> list[bytes]:
    """The same samples from the local shards."""
    [dataset] = ShardSet.open(built)
    here = spots_of(dataset, spots.size, spots.rows)
    return [read(LocalStore(), here, at) for at in range(len(here))]


def every(shards: ShardSet, size: int = 48) -> Spots:
    return spots_of(shards["pets"], size, ALL)


def test_a_set_behind_a_url_cannot_be_mapped(served: Server, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"only local shards can be mapped: leave mapped=True"):
        opened(served, tmp_path).open_store(mapped=True)


def test_every_sample_is_the_local_one(built: Path, served: Server, tmp_path: Path) -> None:
    shards = opened(served, tmp_path)
    store = store_of(shards)
    for size in (24, 48):
        spots = every(shards, size)
        store.prefetch(spots)
        assert [read(store, spots, at) for at in range(60)] == right(built, spots)
    assert (
        store.stats.requests == len(served.ranges()) == 8
    )  # one for each of two times four shards
    assert (store.stats.fetched, store.stats.read, store.stats.retries) == (120, 120, 0)
    store.close()


@pytest.mark.parametrize("bad", [(), (7, 30)])
def test_each_picture_that_is_decoded_counts_as_read_once_and_lets_go_of_its_file(
    bad: tuple[int, ...], built: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(built, tmp_path / "served" / "pets")
    with Server(copy.parent) as server:
        shards = opened(server, tmp_path / "cache")
        store, spots = store_of(shards), every(shards)
        for at in bad:
            tar = copy / "48" / spots.file(at).name
            tar.write_bytes(altered(tar.read_bytes(), spots.offsets[at] + 9))
        decoder = Threads(store, size=48, threads=2)
        store.prefetch(spots)
        images, faults = decoded(decoder, spots)
        again, others = decoded(decoder, spots)  # which nobody announced
        decoder.close()
    local = Threads(LocalStore(), size=48, threads=1)
    needed, _ = decoded(local, spots_of(ShardSet.open(built)["pets"], 48, ALL))
    local.close()
    needed[list(bad)] = 0
    assert torch.equal(images, needed)
    assert torch.equal(again, needed)
    assert [fault.at for fault in faults] == [fault.at for fault in others] == list(bad)
    assert store.stats.read == 2 * (60 - len(bad))
    assert not any(mirror.wanted for mirror in store._mirrors._mirrors.values())
    store.close()


def altered(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def test_samples_that_nobody_announced_come_too(
    built: Path, served: Server, tmp_path: Path
) -> None:
    shards = opened(served, tmp_path)
    store, spots = store_of(shards), every(shards)
    assert read(store, spots, 30) == right(built, spots)[30]
    assert len(served.ranges()) == 1
    assert store.stats.bytes == spots.lengths[30]
    store.close()


def test_a_fifth_of_the_answers_are_faulty(built: Path, tmp_path: Path) -> None:
    """Rows one by one: hundreds of requests, and each kind of fault among them."""
    with Server(built.parent, share=0.2) as server:
        shards = opened(server, tmp_path)
        store = store_of(shards)
        started = time.monotonic()
        for size in (24, 48):
            spots = every(shards, size)
            for at in range(60):
                store.prefetch(spots.part(at, at + 1))
            assert [read(store, spots, at) for at in range(60)] == right(built, spots)
        store.close()
        assert set(server.made) == set(FAULTS)
        assert store.stats.retries == store.stats.requests - 120 > 10
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_in_manifest_and_index_are_retried(built: Path, tmp_path: Path, fault: str) -> None:
    with Server(built.parent, share=1.0, kinds=(fault,)) as server:
        server.most = 2
        shards = opened(server, tmp_path)
        assert server.made[fault] == 4
    assert shards["pets"].manifest.text() == (built / "dataset.json").read_text()
    assert len(shards["pets"].index) == 60


def test_a_server_that_stalls_costs_a_timeout_and_no_more(served: Server, tmp_path: Path) -> None:
    shards = opened(served, tmp_path, patience=Patience(timeout=0.3, pause=0.01, retries=2))
    served.always[".tar"] = "stall"
    store, spots = store_of(shards), every(shards)
    started = time.monotonic()
    with pytest.raises(SourceMissing) as caught:
        read(store, spots, 0)
    assert 0.9 <= time.monotonic() - started < 5
    text = str(caught.value)
    assert f"{served.url}/pets/48/shard-000000.tar, bytes {spots.offsets[0]:,} to " in text
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
    served: Server, tmp_path: Path, fault: str, tries: int, message: str
) -> None:
    shards = opened(served, tmp_path)
    served.always[".tar"] = fault
    store, spots = store_of(shards), every(shards)
    with pytest.raises(SourceMissing, match=message):
        read(store, spots, 0)
    assert len(served.ranges()) == tries
    store.prefetch(spots)
    with pytest.raises(SourceMissing, match=message):
        read(store, spots, 59)
    store.close()


def test_a_sample_damaged_at_its_origin_leaves_the_others(built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "served" / "pets")
    spots = every(ShardSet.open(copy))
    tar = spots.file(7).read_bytes()
    middle = spots.offsets[7] + 9
    spots.file(7).write_bytes(tar[:middle] + bytes([tar[middle] ^ 1]) + tar[middle + 1 :])
    with Server(copy.parent) as server:
        shards = opened(server, tmp_path / "cache")
        store, spots, wanted = store_of(shards), every(shards), right(built, spots)
        store.prefetch(spots)
        for at in range(60):
            if at != 7:
                assert read(store, spots, at) == wanted[at]
        for _ in range(3):
            with pytest.raises(IntegrityError, match=r"damaged where it comes from: .* 3 times"):
                read(store, spots, 7)
        assert len(server.ranges()) == 4 + 2  # four shards, and the damaged one twice more
        store.close()


def test_a_tar_truncated_at_its_origin_still_gives_its_beginning(
    built: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(built, tmp_path / "served" / "pets")
    local = every(ShardSet.open(copy))
    first = [at for at in range(60) if local.shards[at] == local.shards[0]]
    first.sort(key=lambda at: local.offsets[at])
    with local.file(0).open("r+b") as file:
        file.truncate(local.offsets[first[8]] + 10)
    with Server(copy.parent) as server:
        shards = opened(server, tmp_path / "cache")
        store, spots, wanted = store_of(shards), every(shards), right(built, local)
        store.prefetch(spots)
        assert [read(store, spots, at) for at in first[:8]] == [wanted[at] for at in first[:8]]
        for at in first[8:]:
            with pytest.raises(IntegrityError, match=r"damaged where it comes from: .* came"):
                read(store, spots, at)
        store.close()
        alone = store_of(shards)
        with pytest.raises(IntegrityError, match="the file ends before that"):
            read(alone, spots, first[-1])
        alone.close()


def test_a_second_run_finds_the_bytes(built: Path, served: Server, tmp_path: Path) -> None:
    for run in range(2):
        shards = opened(served, tmp_path)
        store, spots = store_of(shards), every(shards)
        store.prefetch(spots.part(0, 40))
        assert [read(store, spots, at) for at in range(40)] == right(built, spots)[:40]
        assert store.stats.hits == (40 if run else 0)
        store.close()
    assert max(served.asked[name] for name in served.ranges()) == 1
    assert len(served.ranges("index.parquet")) == 1  # the manifest says that it is the same
    assert len(served.ranges("dataset.json")) == 2


def test_an_index_that_changed_is_fetched_again(built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "served" / "pets")
    with Server(copy.parent) as server:
        [first] = opened(server, tmp_path / "cache")
        (first.root / "index.parquet").write_bytes(b"old")
        [second] = opened(server, tmp_path / "cache")
        assert len(second.index) == 60
        (copy / "index.parquet").write_bytes(b"not what the manifest says")
        (first.root / "index.parquet").unlink()
        with pytest.raises(IntegrityError, match=r"index\.parquet came 3 times .*sha256"):
            opened(server, tmp_path / "cache")


def test_stale_bytes_in_the_cache_are_replaced(built: Path, served: Server, tmp_path: Path) -> None:
    shards = opened(served, tmp_path)
    spots = every(shards)
    for shard in range(4):
        tar = shards["pets"].tar(48, shard)
        tar.parent.mkdir(exist_ok=True)
        tar.write_bytes(b"of another build" * 5000)
    store = store_of(shards)
    store.prefetch(spots)
    assert [read(store, spots, at) for at in range(60)] == right(built, spots)
    store.close()


def test_each_range_is_fetched_once_however_many_threads_want_it(
    built: Path, served: Server, tmp_path: Path
) -> None:
    shards = opened(served, tmp_path)
    store, spots, wanted = store_of(shards), every(shards), right(built, every(shards))
    barrier = threading.Barrier(12)

    def work(seed: int) -> bool:
        barrier.wait()
        if seed % 3 == 0:
            store.prefetch(spots)
        order = np.random.default_rng(seed).permutation(60).tolist()
        return all(read(store, spots, at) == wanted[at] for at in order)

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(work, range(12)))
    assert store.stats.fetched == 60
    assert store.stats.read == 12 * 60
    store.close()


def on_disk(folder: Path) -> int:
    return sum(tar.stat().st_blocks * 512 for tar in folder.rglob("*.tar"))


def test_the_cache_stays_below_its_limit(built: Path, served: Server, tmp_path: Path) -> None:
    limit = 110_000  # two shards, which is what a part of six may need, and not three
    shards = opened(served, tmp_path, cache_bytes=limit)
    store, spots = store_of(shards), every(shards, 24)
    for _ in range(3):
        for begin in range(0, 60, 6):
            part = spots.part(begin, begin + 6)
            store.prefetch(part)
            assert [read(store, part, at) for at in range(6)] == right(built, part)
            assert on_disk(tmp_path) <= limit
    assert store.stats.evicted >= 6
    store.close()
    tighter = store_of(opened(served, tmp_path, cache_bytes=1))
    assert read(tighter, spots, 0) == right(built, spots)[0]  # what an earlier run left makes room
    assert len(list(tmp_path.rglob("*.tar"))) == 1
    tighter.close()


def test_what_was_announced_stays_until_it_was_read(
    built: Path, served: Server, tmp_path: Path
) -> None:
    shards = opened(served, tmp_path, cache_bytes=1)
    store, spots = store_of(shards), every(shards)
    store.prefetch(spots)
    while store.stats.fetched < 60:
        time.sleep(0.01)
    assert len(list(tmp_path.rglob("*.tar"))) == 4
    assert [read(store, spots, at) for at in range(60)] == right(built, spots)
    assert (len(served.ranges()), store.stats.evicted) == (4, 0)
    again = spots_of(shards["pets"], 24, ALL)
    assert read(store, again, 0) == right(built, again)[0]
    assert store.stats.evicted == 4
    store.close()


def test_a_cache_that_others_empty_is_filled_again(
    built: Path, served: Server, tmp_path: Path
) -> None:
    shards = opened(served, tmp_path)
    store, spots, wanted = store_of(shards), every(shards), right(built, every(shards))
    for _ in range(3):
        store.prefetch(spots)
        assert [read(store, spots, at) for at in range(60)] == wanted
        for tar in tmp_path.rglob("*.tar"):
            tar.unlink()
    store.close()
    assert not list(tmp_path.rglob("*.tar"))  # the open files were still good
    fresh = store_of(shards)
    fresh.prefetch(spots.part(0, 20))
    assert [read(fresh, spots, at) for at in range(20)] == wanted[:20]
    for tar in tmp_path.rglob("*.tar"):
        tar.unlink()
    assert [read(fresh, spots, at) for at in range(60)] == wanted
    fresh.close()


def test_threads_read_right_from_a_cache_that_is_too_small(
    built: Path, served: Server, tmp_path: Path
) -> None:
    shards = opened(served, tmp_path, cache_bytes=1)
    store, spots, wanted = store_of(shards), every(shards), right(built, every(shards))

    def work(seed: int) -> bool:
        draws = np.random.default_rng(seed)
        for _ in range(6):
            picked = draws.integers(0, 60, 8).tolist()
            part = spots.pick(picked)
            if seed % 2:
                store.prefetch(part)
            if any(read(store, part, at) != wanted[picked[at]] for at in range(8)):
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
    assert store.stats.evicted > 0
    store.close()


def test_a_full_disk_is_named(
    served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    shards = opened(served, tmp_path)
    store, spots = store_of(shards), every(shards)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutOfSpace, match=rf"disk of {tmp_path} is full .* smaller limit"):
        read(store, spots, 0)
    monkeypatch.undo()
    assert len(read(store, spots, 0)) == spots.lengths[0]
    store.close()


READER = """
import sys, numpy as np
from pipeline.shardset import ShardSet
from pipeline.store import spots_of
shards = ShardSet.open(sys.argv[1], cache=sys.argv[2], cache_bytes=60_000)
store, spots = shards.open_store(), spots_of(shards["pets"], 24, np.arange(60))
for number in range(3):
    for begin in range(0, 60, 10):
        store.prefetch(spots.part(begin, begin + 10))
        for at in range(begin, begin + 10):
            store.read(spots, at, [memoryview(bytearray(spots.lengths[at]))])
store.close()
print("all", store.stats.read)
"""


def test_two_processes_share_a_cache_that_is_too_small(served: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", READER, f"{served.url}/pets", str(tmp_path)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        out, err = process.communicate(timeout=60)
        assert (out, err) == ("all 180\n", "")


def test_a_closed_store_gives_up_at_once(served: Server, tmp_path: Path) -> None:
    shards = opened(served, tmp_path, patience=Patience(timeout=20))
    served.always[".tar"] = "stall"
    before = threading.active_count()
    store, spots = store_of(shards), every(shards)
    store.prefetch(spots)
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            read(store, spots, 0)
        except PipelineError as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not served.ranges():
        time.sleep(0.01)
    started = time.monotonic()
    store.close()
    waiting.join(2)
    assert time.monotonic() - started < 2
    assert [type(failure) for failure in failures] == [Interrupted]
    served.stopped.set()
    with pytest.raises(Interrupted, match="the store was closed"):
        read(store, spots, 0)
    store.prefetch(spots)
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
    with Server(built.parent, share=1.0, kinds=("500",)) as server:
        shards = opened(server, tmp_path)
        store, spots = store_of(shards), every(shards)
        store.prefetch(spots)
        assert [read(store, spots, at) for at in range(60)] == right(built, spots)
        store.close()
    assert server.made["500"] > 0
    assert [*found, draw()] == wanted


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_any_filesystem_will_do(built: Path, tmp_path: Path, protocol: str) -> None:
    url = f"memory://{tmp_path.name}" if protocol == "memory" else f"file://{tmp_path}/there"
    fs, root = fsspec.core.url_to_fs(url)
    for name in "ab":
        copy = renamed(built, tmp_path / "copy" / name, name)
        fs.put(f"{copy}/", f"{root}/{name}/", recursive=True)
    shards = ShardSet.open(url, cache=tmp_path / "cache", patience=QUICK)
    assert list(shards.datasets) == ["a", "b"]
    store = store_of(shards)
    for dataset in shards:
        spots = spots_of(dataset, 48, ALL)
        store.prefetch(spots)
        assert [read(store, spots, at) for at in range(60)] == right(built, spots)
    fs.rm(f"{root}/b/48/shard-000001.tar")
    store.close()
    other = ShardSet.open(url, cache=tmp_path / "empty", patience=QUICK)
    store, spots = store_of(other), spots_of(other["b"], 48, ALL)
    with pytest.raises(SourceMissing, match=r"b/48/shard-000001\.tar, bytes .* is not there"):
        read(store, spots, spots.shards.index(1))
    store.close()


def test_a_folder_behind_http_is_listed(built: Path, tmp_path: Path) -> None:
    for name in "ab":
        renamed(built, tmp_path / "served" / name, name)
    (tmp_path / "served" / "notes").mkdir()
    with Server(tmp_path / "served") as server:
        shards = ShardSet.open(server.url, cache=tmp_path / "cache", patience=QUICK)
        assert list(shards.datasets) == ["a", "b"]
        server.lists = False
        with pytest.raises(SourceMissing, match=r"nor a listing of folders .* a list of URLs"):
            ShardSet.open(server.url, cache=tmp_path / "cache", patience=QUICK)
        urls = [f"{server.url}/a", f"{server.url}/b/"]
        assert len(ShardSet.open(urls, cache=tmp_path / "cache", patience=QUICK)) == 2


def test_local_and_remote_datasets_are_one_set(built: Path, served: Server, tmp_path: Path) -> None:
    here = renamed(built, tmp_path / "here", "ants")
    shards = ShardSet.open([here, f"{served.url}/pets"], cache=tmp_path / "cache", patience=QUICK)
    store = store_of(shards)
    for dataset in shards:
        spots = spots_of(dataset, 24, ALL)
        store.prefetch(spots)
        assert [read(store, spots, at) for at in range(60)] == right(built, spots)
    assert store.stats.fetched == 60
    store.close()


def test_an_unfinished_foreign_or_absent_dataset_is_an_error(built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "served" / "pets")
    whole = (copy / "dataset.json").read_text()
    with Server(tmp_path / "served") as server:
        with pytest.raises(SourceMissing, match="neither a dataset"):
            ShardSet.open(f"{server.url}/pets/24", cache=tmp_path / "cache", patience=QUICK)
        with pytest.raises(SourceMissing, match="nowhere is not there"):
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
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "https://example.org/x needs fsspec: pip install -e '.[remote]'\n"


def test_the_cache_is_where_caches_are(
    built: Path, served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shards = opened(served, None)  # type: ignore[arg-type]
    assert shards["pets"].root.parent == tmp_path / "lite-shards" / "remote"
    assert shards["pets"].root.name.startswith("pets-")
