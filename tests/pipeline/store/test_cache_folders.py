"""A cache that others can write into: what they put there leads nowhere, and nothing of theirs is deleted."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.shardset import ShardSet
from pipeline.store.cache_folders import MOST_OPEN_FOLDERS, CacheFolders, dataset_folder, list_cache_files
from pipeline.store.fetch import RetryPolicy
from pipeline.store.local import locate_samples
from tests.pipeline.store.faulty_server import FaultyServer

FOLDER = "pets-0123456789abcdef"
SHARD = "shard-000000.tar"


@pytest.fixture
def served(built: Path) -> Iterator[FaultyServer]:
    with FaultyServer(built.parent) as server:
        yield server


def read_all(server: FaultyServer, cache: Path, cache_bytes: int = 2**30) -> ShardSet:
    shards = ShardSet.open(
        f"{server.url}/pets",
        cache=cache,
        cache_bytes=cache_bytes,
        patience=RetryPolicy(timeout=30, pause=0.01),
    )
    store, locations = shards.open_store(), locate_samples(shards["pets"], 48, np.arange(60))
    store.prefetch(locations)
    for at in range(60):
        store.read(locations, at, [memoryview(bytearray(locations.lengths[at]))])
    store.close()
    return shards


def open_and_close(cache: Path, path: Path) -> None:
    folders = CacheFolders(cache)
    os.close(folders.open_file(path))
    folders.close()


def plant(kind: str, path: Path, victim: Path) -> None:
    """Put something else in the place of a file of the cache."""
    path.unlink()
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dangling link":
        path.symlink_to(victim.with_name("absent"))
    elif kind == "hard link":
        path.hardlink_to(victim)
    elif kind == "link to a folder":
        path.symlink_to(victim.parent)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        folder = Path.cwd()
        os.chdir(path.parent)  # the path of a socket has a hundred characters at most
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
        os.chdir(folder)


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "link to a folder", "pipe", "socket"])
def test_what_is_put_in_the_place_of_a_tar_is_replaced_and_not_followed(
    served: FaultyServer, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "home").mkdir()
    victim = tmp_path / "home" / "precious"
    victim.write_text("precious")
    shards = read_all(served, tmp_path / "cache")
    tar = shards["pets"].tar(48, 0)
    plant(kind, tar, victim)
    read_all(served, tmp_path / "cache")
    assert victim.read_text() == "precious"
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["precious"]
    assert tar.is_file()
    assert not tar.is_symlink()


@pytest.mark.parametrize("part", ["dataset", "size"])
def test_a_linked_folder_is_an_error_and_stays_empty(served: FaultyServer, tmp_path: Path, part: str) -> None:
    shards = read_all(served, tmp_path / "cache")
    folder = shards["pets"].root if part == "dataset" else shards["pets"].tar(48, 0).parent
    (tmp_path / "home").mkdir()
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path / "home")
    with pytest.raises(UsageError, match=r"is a link or a file, and .*; delete it, or name another"):
        read_all(served, tmp_path / "cache")
    assert not list((tmp_path / "home").iterdir())


def test_a_folder_that_is_called_like_a_shard_is_an_error(served: FaultyServer, tmp_path: Path) -> None:
    tar = read_all(served, tmp_path)["pets"].tar(48, 0)
    tar.unlink()
    tar.mkdir()
    with pytest.raises(UsageError, match=r"shard-000000\.tar is a folder, and the cache keeps a file"):
        read_all(served, tmp_path)


def test_a_cache_that_is_a_link_itself_will_do(served: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "large disk")
    read_all(served, tmp_path / "cache")
    assert len(list((tmp_path / "large disk").rglob("*.tar"))) == 4


def test_files_that_no_cache_writes_are_neither_counted_nor_deleted(
    built: Path, served: FaultyServer, tmp_path: Path
) -> None:
    """Among them shard sets of the user's own, in the folder or behind a link, whose tars are called alike."""
    shutil.copytree(built, tmp_path / "cache" / "mine")
    shutil.copytree(built, tmp_path / "home" / "pets")
    (tmp_path / "cache" / FOLDER).symlink_to(tmp_path / "home" / "pets")
    odd = tmp_path / "cache" / "odd-0123456789abcdef"
    (odd / "48" / SHARD).mkdir(parents=True)
    for name in ("shard-abc.tar", "shard-.tar", "shard-00000000000000000000.tar", "shard-000001.tar.gz"):
        (odd / "48" / name).write_bytes(bytes(100))
    (odd / "48" / "shard-000002.tar").symlink_to(tmp_path / "home" / "pets" / "48" / SHARD)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert list_cache_files(tmp_path / "cache") == []
    read_all(served, tmp_path / "cache", cache_bytes=1)
    assert set(before) <= set(tmp_path.rglob("*"))


def test_a_file_that_goes_while_the_cache_is_listed_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / FOLDER / "48" / SHARD
    open_and_close(tmp_path, path)
    assert [(file.path, file.shard, file.bytes) for file in list_cache_files(tmp_path)] == [(path, 0, 0)]
    assert list_cache_files(tmp_path / "absent") == []


@pytest.mark.parametrize(
    "url", ["http://h/" + "é" * 400, "http://h/a\x00b", "http://h/..", "http://h/%2e%2e?x=/../y", "memory://"]
)
def test_any_url_has_a_folder_of_its_own(tmp_path: Path, url: str) -> None:
    folder = dataset_folder(tmp_path, url)
    assert folder.parent == tmp_path
    open_and_close(tmp_path, folder / "48" / SHARD)
    assert len(list_cache_files(tmp_path)) == 1
    assert dataset_folder(tmp_path, url + "x") != folder


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors in /proc")
def test_folders_are_kept_open_few_at_a_time_and_made_again(tmp_path: Path) -> None:
    def open_descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before, folders = open_descriptors(), CacheFolders(tmp_path / "cache")
    paths = [tmp_path / "cache" / FOLDER / str(size) / SHARD for size in range(1, 2 * MOST_OPEN_FOLDERS)]
    for path in paths:
        os.close(folders.open_file(path))
    assert open_descriptors() <= before + MOST_OPEN_FOLDERS + 2
    shutil.rmtree(tmp_path / "cache")
    for path in paths:
        os.close(folders.open_file(path))
    folders.delete_file(paths[0])
    folders.delete_file(paths[0])
    assert [path.is_file() for path in paths] == [False, *[True] * (len(paths) - 1)]
    folders.close()
    assert open_descriptors() == before
