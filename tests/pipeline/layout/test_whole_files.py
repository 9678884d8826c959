"""A file is written completely or not at all, and what a killed process leaves is removed, nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import ROOT
from pipeline.errors import errors_about
from pipeline.layout import (
    PartialFile,
    atomic_file,
    make_folder,
    remove_leftovers,
    whole_files,
    write_atomically,
)

HOLD = """
import sys, time
from pathlib import Path
from pipeline.layout import PartialFile
with PartialFile(Path(sys.argv[1])) as partial:
    partial.handle.write(b"half")
    partial.handle.flush()
    print("holds", flush=True)
    time.sleep(60)
"""


def start_writer(target: Path, *before: str) -> subprocess.Popen[str]:
    """A process that has begun to write a file and holds it."""
    command = [*before, sys.executable, "-c", HOLD, str(target)]
    writer = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "holds\n"
    return writer


def end(writer: subprocess.Popen[str]) -> None:
    writer.kill()
    writer.communicate()


def test_the_file_of_a_running_process_stays_and_that_of_a_killed_one_goes(tmp_path: Path) -> None:
    (tmp_path / "24").mkdir()
    writer = start_writer(tmp_path / "24" / "a.tar")
    remove_leftovers(tmp_path)
    assert len(list((tmp_path / "24").iterdir())) == 1
    end(writer)
    assert len(list((tmp_path / "24").iterdir())) == 1
    remove_leftovers(tmp_path)
    assert list((tmp_path / "24").iterdir()) == []


UNSHARE = ("unshare", "-pf", "--mount-proc", "--kill-child")


@pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode != 0,
    reason="process numbers of one's own need the right to unshare",
)
def test_the_file_of_another_container_stays_though_its_process_is_not_to_be_seen(tmp_path: Path) -> None:
    writer = start_writer(tmp_path / "a.tar", *UNSHARE)
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    end(writer)


@pytest.mark.parametrize(("age", "stays"), [(0, True), (whole_files.ABANDONED_SECONDS + 60, False)])
def test_the_file_of_another_machine_goes_when_it_is_old(age: float, *, stays: bool, tmp_path: Path) -> None:
    foreign = tmp_path / ".tmp-elsewhere-1-ab-a.tar"
    foreign.touch()
    os.utime(foreign, times=(time.time() - age,) * 2)
    remove_leftovers(tmp_path)
    assert foreign.exists() == stays


@pytest.mark.parametrize("age", [0, whole_files.ABANDONED_SECONDS + 60])
def test_without_locks_only_old_files_go(age: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    left = whole_files.temporary_path(tmp_path / "a.tar")
    left.touch()
    os.utime(left, times=(time.time() - age,) * 2)
    write_atomically(tmp_path / "b.tar", b"whole")
    remove_leftovers(tmp_path)
    assert left.exists() == (age == 0)
    assert (tmp_path / "b.tar").read_bytes() == b"whole"


def test_a_file_that_is_found_in_the_instant_before_its_lock_is_written_under_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = whole_files.lock_file
    found: list[Path] = []

    def late(handle: int) -> bool | None:
        if not found:
            found.extend(tmp_path.iterdir())
            found[0].unlink()
        return real(handle)

    monkeypatch.setattr(whole_files, "lock_file", late)
    write_atomically(tmp_path / "a.tar", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
    assert (tmp_path / "a.tar").read_bytes() == b"whole"


def test_what_is_no_file_of_ours_stays(tmp_path: Path) -> None:
    (tmp_path / ".tmp-folder").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".tmp-link").symlink_to("precious")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".tmp-folder", "precious", ".tmp-link"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("block", [b"small", bytes(3 << 20)])
def test_a_full_disk_leaves_nothing_and_the_error_names_the_file(
    block: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the buffer is written only at the close, which then fails a second time."""

    def diverted(self: Any, path: Path, target: Path) -> None:
        original(self, path, target)
        handle = os.open("/dev/full", os.O_WRONLY)
        os.dup2(handle, self.fileno())
        os.close(handle)

    original = whole_files.NamedWriter.__init__
    monkeypatch.setattr(whole_files.NamedWriter, "__init__", diverted)
    with pytest.raises(OSError, match="No space left") as caught, atomic_file(tmp_path / "a.tar") as file:
        file.write(block)
    assert caught.value.filename == str(tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_durable_before_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(whole_files, "sync_folder", synced.append)
    make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
    make_folder(tmp_path / "a" / "b")  # there already: it may have been created and not synced
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a"]


def test_a_folder_that_cannot_be_synced_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def no_folders(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):  # noqa: PTH112 - by descriptor
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(handle)

    monkeypatch.setattr(os, "fsync", no_folders)
    write_atomically(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_of_two_first_writers_one_keeps_the_name(tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        with PartialFile(tmp_path / "plan") as partial:
            partial.handle.write(data)
            partial.publish(first=True)
    assert (tmp_path / "plan").read_bytes() == b"one"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_of_a_read_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught, errors_about(tmp_path):
        os.read(os.open(tmp_path, os.O_RDONLY), 1)
    assert caught.value.filename == str(tmp_path)
