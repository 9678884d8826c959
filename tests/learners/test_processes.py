"""A folder belongs to one group of processes at a time, and a process that is lost is said in words."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import signal
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socket

import pytest
import torch

from learners.processes import LOCK_FILE, ProcessGroup, join_processes
from pipeline.errors import UsageError
from pipeline.layout import atomic_file

ROOT = Path(__file__).resolve().parents[2]
BLOCK = 16 << 20  # float32, 64 MB: more than glibc keeps by itself
HUGE_PAGE = 1 << 21  # bytes, the most that a page fault brings
ALONE = ProcessGroup(0, 1, torch.device("cpu"))


def hold_for_ever(folder: Path, ready: Connection) -> None:
    """A process that holds a folder, and is in the middle of writing a file there."""
    with ALONE.hold(folder), atomic_file(folder / "weights") as file:
        file.write(b"half of it")
        file.flush()
        ready.send(True)  # noqa: FBT003 - a message
        signal.pause()


def test_a_folder_is_held_until_its_process_ends_however_it_ends(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=hold_for_ever, args=(tmp_path / "run", there), daemon=True)
    child.start()
    assert here.poll(60)
    with (
        pytest.raises(UsageError, match=rf"in use by process {child.pid} of .*--out"),
        ALONE.hold(tmp_path / "run"),
    ):
        pass
    assert len(list((tmp_path / "run").glob(".tmp-*"))) == 1  # it still writes that
    child.kill()
    child.join()
    with ALONE.hold(tmp_path / "run"):
        assert [file.name for file in (tmp_path / "run").iterdir()] == [LOCK_FILE]
    with ALONE.hold(tmp_path / "run"):  # and again: it was let go
        pass


def least_of_two(rank: int, port: int, results: Connection) -> None:
    """One process of two that compare numbers."""
    here = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in here.items()})
    with join_processes("cpu") as processes:
        results.send(processes.least([40 + rank, 256 - rank]))


def test_processes_agree_on_the_least_of_each_number() -> None:
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    children = [
        context.Process(target=least_of_two, args=(rank, port, results), daemon=True)
        for rank, (_, results) in enumerate(pipes)
    ]
    for child in children:
        child.start()
    for here, _ in pipes:
        assert here.poll(120)
        assert here.recv() == [40, 255]
    for child in children:
        child.join()


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other libraries keep memory by rules of their own"
)
def test_large_blocks_that_were_freed_are_used_again_without_new_pages() -> None:
    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    with join_processes("cpu"):
        for _ in range(10):  # an aligned block fits into a freed one that is a little larger
            torch.ones(BLOCK)
        before = faults()
        for _ in range(5):
            torch.ones(BLOCK)
    assert faults() - before < 5 * 4 * BLOCK / HUGE_PAGE


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("learners.processes.lock_file", lambda _: None)
    with ALONE.hold(tmp_path / "run"):
        assert "without locks: start nothing else that writes into it" in caplog.text


LOST = """
import os, signal, sys
from learners.processes import join_processes
from pipeline.command import run_command

def main(_):
    with join_processes("cpu") as group:
        group.any(False)
        if group.rank == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        while True:
            group.any(False)

sys.exit(run_command(main))
"""


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_is_one_sentence_of_the_others(tmp_path: Path, lost: int) -> None:
    script = tmp_path / "lost.py"
    script.write_text(LOST)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
             "--rdzv-endpoint", "localhost:0", "--redirects", "3", "--log-dir", str(tmp_path / "logs")]  # fmt: skip
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*start, str(script), str(lost)], env=os.environ | settings, capture_output=True, check=False
    )
    assert done.returncode == 1
    (said,) = (file.read_text() for file in (tmp_path / "logs").rglob(f"{1 - lost}/stderr.log"))
    (line,) = (line for line in said.splitlines() if line.startswith("error:"))
    assert "another process of the group has ended" in line
    assert line.endswith("what is saved is kept, start all of them again")
    assert "Traceback" not in said
