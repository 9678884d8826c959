"""Builds of several processes under faults: Ctrl-C, array tasks, two builders at once, odd environments.

Whatever happens, a file under its final name is right, and the same command ends in the same bytes. Faults at
each single system call (kills, failing writes, full disks, power cuts) are rows F1 to F4 and F17 to F19 of
`tests/faults`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from benchmarks import kill
from benchmarks.common import ROOT
from pipeline.build.builder import Run, build_shards
from pipeline.errors import OutOfSpace, UsageError
from pipeline.layout import DatasetLayout
from pipeline.records import Encoding, Recipe
from pipeline.sources.folder import FolderSource
from tests.images import fill_class_folders

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the faults are injected by means of Linux"
)
RECIPE: Final = Recipe(
    sizes=(16, 24), encodings=(Encoding.parse("raw"), Encoding.parse("jpeg:95")), shard_samples=4
)


class NoiseSource(NamedTuple):
    """A source, and what a build of it comes to when nothing happens."""

    source: Path
    tree: dict[str, str]


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> NoiseSource:
    folder = tmp_path_factory.mktemp("noise")
    source = kill.write_noise_archive(folder / "noise.tar.gz", images=64)
    kill.wait_for_build(kill.start_build(source, folder / "out", "--workers", "1"))
    return NoiseSource(source, kill.file_hashes(folder / "out"))


def run_build(noise: NoiseSource, out: Path, *options: str, **process_options: Any) -> subprocess.Popen[str]:
    """Run the build to its end, with these options of Popen."""
    build = subprocess.Popen(
        kill.build_command(noise.source, out, *options), text=True, cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **process_options,
    )  # fmt: skip
    build.errors = build.communicate()[1]  # type: ignore[attr-defined]
    return build


def wait_for(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end, "it did not happen within 30 s"
        time.sleep(kill.LOOK_SECONDS)


@pytest.mark.parametrize("workers", ["2", "4"])
def test_more_workers_write_the_same_bytes(noise: NoiseSource, workers: str, tmp_path: Path) -> None:
    kill.wait_for_build(kill.start_build(noise.source, tmp_path / "out", "--workers", workers))
    assert kill.file_hashes(tmp_path / "out") == noise.tree


def test_array_tasks_in_any_order_killed_or_run_twice_write_the_same_bytes(
    noise: NoiseSource, tmp_path: Path
) -> None:
    out, order = tmp_path / "out", random.sample(range(3), 3)
    tasks = [("--task-index", str(task), "--num-tasks", "3", "--workers", "1") for task in order]
    victim = kill.start_build(noise.source, out, *tasks[0])
    wait_for(lambda: list(DatasetLayout(out).work.glob("shard-*.parquet")))
    kill.kill_build(victim, whole=True)
    for task in (tasks[1], tasks[1], tasks[0], tasks[2]):
        kill.check_state(out, noise.tree)
        kill.wait_for_build(kill.start_build(noise.source, out, *task))
    assert kill.file_hashes(out) == noise.tree


def command_line(process: Path) -> str:
    with suppress(OSError):  # it has just gone
        return (process / "cmdline").read_text()
    return ""


def while_workers_start(build: int, _out: Path) -> bool:
    return any("spawn_main" in command_line(process) for process in kill.running_processes(build))


def between_shards(_build: int, out: Path) -> bool:
    return any(DatasetLayout(out).work.glob("shard-*.parquet"))


@pytest.mark.parametrize("moment", [while_workers_start, between_shards])
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM], ids=lambda blow: blow.name)
@pytest.mark.parametrize("everyone", [True, False], ids=["to all", "to the main process"])
def test_ctrl_c_ends_with_130_and_one_sentence_without_orphans_and_the_build_can_go_on(
    noise: NoiseSource,
    tmp_path: Path,
    moment: Callable[[int, Path], bool],
    blow: signal.Signals,
    *,
    everyone: bool,
) -> None:
    out = tmp_path / "out"
    build = kill.start_build(noise.source, out, "--workers", "2")
    wait_for(lambda: moment(build.pid, out))
    (os.killpg if everyone else os.kill)(build.pid, blow)
    _, errors = build.communicate(timeout=30)
    assert (build.returncode, errors) == (
        130,
        b"stopped; what is finished is kept, run the same command to go on\n",
    )
    kill.wait_until_gone(build.pid)
    kill.check_state(out, noise.tree)
    kill.wait_for_build(kill.start_build(noise.source, out))
    assert kill.file_hashes(out) == noise.tree


@pytest.mark.parametrize("attempt", range(3))
def test_two_builders_at_once_both_succeed(noise: NoiseSource, tmp_path: Path, attempt: int) -> None:
    out = tmp_path / "out"
    both = [kill.start_build(noise.source, out, "--workers", "2") for _ in range(2)]
    for build in both:
        kill.wait_for_build(build)
    assert kill.file_hashes(out) == noise.tree
    assert [path for path in out.rglob("*") if kill.is_partial(path, out)] == []


def test_a_second_builder_with_another_plan_is_refused_while_the_first_goes_on(
    noise: NoiseSource, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = kill.start_build(noise.source, out, "--workers", "1")
    wait_for(DatasetLayout(out).plan.exists)
    second = run_build(noise, out, "--resize", "crop")
    assert second.returncode == UsageError.exit_code
    assert "'squash' there, 'crop' asked for" in second.errors  # type: ignore[attr-defined]
    kill.wait_for_build(first)
    assert kill.file_hashes(out) == noise.tree


def test_of_two_plans_at_the_same_moment_one_wins_and_the_other_is_refused(
    noise: NoiseSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other builder's plan appears after ours has been listed, just before it gets its name."""
    out = tmp_path / "out"
    calls = {name: getattr(os, name) for name in ("replace", "rename", "link")}

    def late(name: str) -> Callable[..., None]:
        def call(source: Any, target: Any, **options: Any) -> None:
            if Path(target) == DatasetLayout(out).plan and not DatasetLayout(out).plan.exists():
                kill.wait_for_build(kill.start_build(noise.source, out))
            calls[name](source, target, **options)

        return call

    for name in calls:
        monkeypatch.setattr(os, name, late(name))
    with pytest.raises(UsageError, match="was built from another plan"):
        build_shards(FolderSource(root=noise.source), out, RECIPE, Run(workers=1))
    assert kill.file_hashes(out) == noise.tree


ENVIRONMENTS: Final[dict[str, dict[str, str]]] = {
    "locale C": {"LC_ALL": "C", "LANG": "C"},
    "another time zone": {"TZ": "Pacific/Kiritimati"},
    "another hash seed": {"PYTHONHASHSEED": "7"},
    "no home": {"HOME": "/nonexistent"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_environment_leaves_no_trace_in_the_bytes(noise: NoiseSource, tmp_path: Path, name: str) -> None:
    build = run_build(noise, tmp_path / "out", env=os.environ | ENVIRONMENTS[name])
    assert build.returncode == 0, build.errors  # type: ignore[attr-defined]
    assert kill.file_hashes(tmp_path / "out") == noise.tree


def test_the_umask_the_clock_and_odd_paths_leave_no_trace_in_the_bytes(
    noise: NoiseSource, tmp_path: Path
) -> None:
    folder = tmp_path / "a folder, größer & 東京 #1?"
    folder.mkdir()
    source = folder / noise.source.name
    shutil.copyfile(noise.source, source)
    os.utime(source, (0, 0))
    source.chmod(0o444)
    folder.chmod(0o555)
    out = tmp_path / "out put é" / "deep" / "er"
    build = run_build(NoiseSource(source, {}), out, umask=0o077)
    folder.chmod(0o755)
    assert build.returncode == 0, build.errors  # type: ignore[attr-defined]
    assert kill.file_hashes(out) == noise.tree
    assert list(folder.iterdir()) == [source]


def test_few_open_files_are_enough(tmp_path: Path) -> None:
    source = fill_class_folders(tmp_path / "photos", {"cat": 60, "dog": 60})
    arguments = kill.build_command(source, tmp_path / "out", "--workers", "2")
    limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *arguments]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_that_may_not_grow_ends_with_code_5_and_the_build_goes_on_later(
    noise: NoiseSource, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = kill.build_command(noise.source, out, "--workers", "2")
    shutil.copytree(_inflated(noise, tmp_path), DatasetLayout(out).scratch)
    limited = ["sh", "-c", 'ulimit -f 12; exec "$@"', "sh", *arguments]  # blocks of 512 or 1024
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == OutOfSpace.exit_code, done.stderr
    assert "run the same command again" in done.stderr
    kill.check_state(out, noise.tree)
    kill.wait_for_build(kill.start_build(noise.source, out))
    assert kill.file_hashes(out) == noise.tree


def _inflated(noise: NoiseSource, folder: Path) -> Path:
    """The scratch folder of a build that has been stopped after inflating its source."""
    build = kill.start_build(noise.source, folder / "other", "--workers", "1")
    wait_for(DatasetLayout(folder / "other").plan.exists)
    kill.kill_build(build, whole=True)
    return DatasetLayout(folder / "other").scratch
