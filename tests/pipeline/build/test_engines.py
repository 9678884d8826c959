"""Worker processes end with the main process, and one that dies is an error with its cure."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.build.builder import Run, build_shards
from pipeline.build.engines import array_part
from pipeline.errors import RunInterrupted
from pipeline.records import Encoding, Item, Pixels, Recipe, Rejected
from pipeline.sources.folder import FolderSource

RECIPE = Recipe(sizes=(16,), encodings=(Encoding.parse("raw"),), shard_samples=4)


class DeadlySource(FolderSource):
    """Reading its images kills the process, as a crashing decoder would."""

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield from super().pictures(items)


class SlowSource(FolderSource):
    """Reading its images takes a minute."""

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        (self.root.parent / f"worker-{os.getpid()}").touch()
        time.sleep(60)
        yield from super().pictures(items)


class MappingSource(FolderSource):
    """Reading its images notes what the worker and its main process map into memory."""

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        for process in (os.getpid(), os.getppid()):
            maps = Path(f"/proc/{process}/maps").read_text()
            (self.root.parent / f"maps-{process}").write_text(maps)
        yield from super().pictures(items)


class BrokenSource(FolderSource):
    """Reading its images fails as no source should."""

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        raise ZeroDivisionError(items)


def test_a_worker_that_dies_is_an_error_that_says_what_to_do(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RunInterrupted, match="a worker process died"):
        build_shards(DeadlySource(root=photos), tmp_path / "out", RECIPE, Run(workers=2))
    assert build_shards(FolderSource(root=photos), tmp_path / "out", RECIPE).manifest is not None


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_worker_outlives_the_main_process(blow: signal.Signals, photos: Path, tmp_path: Path) -> None:
    program = (
        "from tests.pipeline.build.test_engines import *\n"
        "from pipeline.command import run_command\n"
        "def main(argv):\n"
        "    build_shards(SlowSource(root=Path(sys.argv[1])), sys.argv[2], RECIPE, Run(workers=2))\n"
        "    return 0\n"
        "if __name__ == '__main__': sys.exit(run_command(main))\n"
    )
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, *map(str, (tmp_path / "program.py", photos, tmp_path / "out"))]
    main = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}, stderr=subprocess.PIPE
    )
    workers: list[int] = []
    while len(workers) < 2:
        assert main.poll() is None
        time.sleep(0.05)
        workers = [int(path.name.split("-")[1]) for path in tmp_path.glob("worker-*")]
    main.send_signal(blow)
    _, errors = main.communicate(timeout=20)
    assert main.returncode == (-signal.SIGKILL if blow == signal.SIGKILL else 130)
    if blow != signal.SIGKILL:
        assert b"run the same command to go on" in errors
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux alone says what a process maps")
def test_no_process_of_a_build_has_named_shared_memory(photos: Path, tmp_path: Path) -> None:
    build_shards(MappingSource(root=photos), tmp_path / "out", RECIPE, Run(workers=2))
    noted = [path.read_text() for path in tmp_path.glob("maps-*")]
    assert len(noted) >= 3  # two workers and the main process
    assert not [line for text in noted for line in text.splitlines() if re.search(r"/dev/shm/\S+$", line)]


def test_an_error_in_a_worker_keeps_its_kind_and_says_where_it_was_raised(
    photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        build_shards(BrokenSource(root=photos), tmp_path / "out", RECIPE, Run(workers=2))
    assert "in pictures" in str(caught.value.__cause__)


def test_array_tasks_share_all_shards_and_none_twice() -> None:
    parts = [array_part(range(10), task, 4) for task in range(4)]
    assert sorted(shard for part in parts for shard in part) == list(range(10))
