"""The shim does to a call what it is told, and the model of a power cut loses what was not synced and nothing else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.io_shim import CALL_KINDS, WRITING_KINDS, IoShim, PlannedFault
from tests.faults.power_loss import CUT_STYLES, CrashModel

WRITE = """
import os, sys
folder, sync = sys.argv[1], "sync" in sys.argv
os.mkdir(folder + "/sub")
fd = os.open(folder + "/sub/new", os.O_WRONLY | os.O_CREAT, 0o600)
data = b"0123456789"
while data:
    data = data[os.write(fd, data):]
if sync:
    os.fsync(fd)
os.close(fd)
os.rename(folder + "/sub/new", folder + "/sub/name")
for path in (folder + "/sub", folder) if sync else ():
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
"""


@pytest.fixture
def shim(tmp_path: Path) -> IoShim:
    (tmp_path / "watched").mkdir()
    (tmp_path / "work").mkdir()
    return IoShim(tmp_path / "work", tmp_path / "watched")


def write(shim: IoShim, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Write a file of ten bytes under another name and rename it."""
    command = [sys.executable, "-c", WRITE, str(tmp_path / "watched"), *words]
    done = subprocess.run(
        command, env=os.environ | shim.environment, capture_output=True, text=True, check=False
    )
    shim.disarm()
    return done


def kinds(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_all_calls_below_the_folder_are_counted_and_no_others(shim: IoShim, tmp_path: Path) -> None:
    shim.arm()
    write(shim, tmp_path)
    counts = dict.fromkeys(CALL_KINDS, 0) | {"mkdir": 1, "create": 1, "write": 1, "close": 1, "rename": 1}
    assert shim.per_kind == counts
    assert shim.calls == 5
    assert shim.fired == ""


def test_the_call_of_that_number_fails_with_that_error(shim: IoShim, tmp_path: Path) -> None:
    shim.arm(PlannedFault("fail", 3, errno.EDQUOT, WRITING_KINDS))
    assert "[Errno 122]" in write(shim, tmp_path).stderr
    assert shim.fired == f"rename {tmp_path}/watched/sub/name"
    assert (tmp_path / "watched" / "sub" / "new").read_bytes() == b"0123456789"


def test_a_short_write_writes_half(shim: IoShim, tmp_path: Path) -> None:
    shim.arm(PlannedFault("short", 0, kinds=kinds("write")))
    assert write(shim, tmp_path).returncode == 0
    assert shim.per_kind["write"] == 2
    assert (tmp_path / "watched" / "sub" / "name").read_bytes() == b"0123456789"


@pytest.mark.parametrize(("action", "left"), [("kill", b""), ("tear", b"01234")])
def test_a_kill_comes_before_the_write_or_within_it(
    action: str, left: bytes, shim: IoShim, tmp_path: Path
) -> None:
    shim.arm(PlannedFault("kill" if action == "kill" else "tear", 0, kinds=kinds("write")))
    assert write(shim, tmp_path).returncode == -signal.SIGKILL
    assert (tmp_path / "watched" / "sub" / "new").read_bytes() == left


def crash_states(shim: IoShim, tmp_path: Path, *words: str) -> list[dict[str, bytes | None]]:
    """What may be there after a cut at the end."""
    shim.arm(log=True)
    assert write(shim, tmp_path, *words).returncode == 0
    calls = list(shim.log())
    model = CrashModel(calls, tmp_path / "watched")
    cuts = (dict(model.after_cut(len(calls), style, seed)) for style in CUT_STYLES for seed in range(20))
    return [{path.removeprefix(f"{tmp_path}/watched/"): data for path, data in cut.items()} for cut in cuts]


def test_what_was_synced_survives_every_cut(shim: IoShim, tmp_path: Path) -> None:
    whole: dict[str, bytes | None] = {"sub": None, "sub/name": b"0123456789"}
    assert all(state == whole for state in crash_states(shim, tmp_path, "sync"))


def test_what_was_not_synced_is_lost_in_every_way(shim: IoShim, tmp_path: Path) -> None:
    states = crash_states(shim, tmp_path)
    assert {} in states
    assert {"sub": None, "sub/name": b""} in states
    assert {"sub": None, "sub/new": b"0123456789"} in states
    assert {"sub": None, "sub/name": b"0123456789"} in states
