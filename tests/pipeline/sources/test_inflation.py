"""A compressed archive is inflated once, by one task, and its copy is never taken for another archive's."""

from __future__ import annotations

import bz2
import fcntl
import gzip
import lzma
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import IntegrityError
from pipeline.layout import temporary_path
from pipeline.sources import inflation
from pipeline.sources.inflation import hold_lock, plain_file
from tests.fuzz.source_files import tar_bytes

PLAIN = tar_bytes(tarfile.USTAR_FORMAT)
OTHER = PLAIN.replace(b"first", b"other")


def inflated(archive: Path) -> bytes:
    return plain_file(archive, archive.name, archive.parent / "scratch")[0].read_bytes()


@pytest.mark.parametrize("pack", [lambda data: gzip.compress(data, mtime=0), bz2.compress, lzma.compress])
def test_another_archive_of_the_same_name_and_size_is_inflated_anew(
    pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    archive = tmp_path / "a.tgz"
    archive.write_bytes(pack(PLAIN))
    assert inflated(archive) == PLAIN
    archive.write_bytes(pack(OTHER))
    assert inflated(archive) == OTHER


def test_a_copy_of_an_archive_is_not_inflated_again(tmp_path: Path) -> None:
    archive = tmp_path / "a.tgz"
    archive.write_bytes(gzip.compress(PLAIN))
    copy = plain_file(archive, "a.tgz", tmp_path / "scratch")[0]
    inode = copy.stat().st_ino
    archive.write_bytes(archive.read_bytes())  # another time stamp, as on another machine
    assert inflated(archive) == PLAIN
    assert copy.stat().st_ino == inode


def test_an_inflated_file_without_its_note_is_not_trusted(tmp_path: Path) -> None:
    archive = tmp_path / "a.tgz"
    archive.write_bytes(gzip.compress(PLAIN))
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "a.tgz.inflated").write_bytes(OTHER)  # of a killed build, or an older version
    assert inflated(archive) == PLAIN


def test_of_many_tasks_one_inflates_and_all_have_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, calls = tmp_path / "a.tgz", list[Any]()
    archive.write_bytes(gzip.compress(PLAIN))
    inflate = inflation._inflate

    def counted(*given: Any) -> None:
        calls.append(given)
        inflate(*given)

    monkeypatch.setattr(inflation, "_inflate", counted)
    with ThreadPoolExecutor(8) as pool:
        copies = list(pool.map(lambda _: inflated(archive), range(8)))
    assert copies == [PLAIN] * 8
    assert len(calls) == 1


def test_a_task_says_what_it_waits_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lock, entered = tmp_path / "lock", threading.Event()

    def wait() -> None:
        with hold_lock(lock, "a.tgz to be inflated"):
            entered.set()

    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(target=wait)
        waiting.start()
        while "waiting for a.tgz to be inflated by another process" not in caplog.text:
            waiting.join(0.01)
        assert not entered.is_set()
    waiting.join()
    assert entered.is_set()


def test_what_a_killed_task_left_of_a_copy_is_removed_by_the_next(tmp_path: Path) -> None:
    archive = tmp_path / "a.tgz"
    archive.write_bytes(gzip.compress(PLAIN))
    (tmp_path / "scratch").mkdir()
    left = temporary_path(tmp_path / "scratch" / "a.tgz.inflated")
    left.write_bytes(PLAIN[:700])
    assert inflated(archive) == PLAIN
    assert not left.exists()


def test_an_archive_that_inflates_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflation, "INFLATION_FREE", 1 << 20)
    (tmp_path / "bomb.tgz").write_bytes(gzip.compress(bytes(8 << 20)))
    with pytest.raises(IntegrityError, match=r"inflates to more than .*, 200 times its size"):
        inflated(tmp_path / "bomb.tgz")
    assert not (tmp_path / "scratch" / "bomb.tgz.inflated").exists()
