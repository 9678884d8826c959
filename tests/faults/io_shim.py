"""The system's I/O calls on the files of a folder, counted, logged and made to fail: the face of `io_shim.c`.

    shim = IoShim(work, watched=folder)                 work: a folder outside the watched one
    shim.arm(PlannedFault("fail", 12, error=errno.EIO))
    subprocess.run(command, env=os.environ | shim.environment)
    shim.calls, shim.fired                              how many calls there were, and which one failed

The counter is shared by the command and all processes that it starts. `command_server.py` runs many
commands under a shim without importing their modules each time.
"""

from __future__ import annotations

import atexit
import mmap
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple
from unittest import SkipTest

SHIM_SOURCE: Final = Path(__file__).with_name("io_shim.c")
STATE_BYTES: Final = 4096
STATE: Final = struct.Struct("<QqiiIiqii1024s1024s976s16Q")  # struct state of io_shim.c
RECORD: Final = struct.Struct("<IIIIQqq")  # struct record of io_shim.c
CALL_KINDS: Final = (
    "open", "create", "read", "write", "fsync", "rename", "link", "unlink", "mkdir", "rmdir", "mmap", "close",
    "truncate", "stat", "list", "lock",
)  # fmt: skip
WRITING_KINDS: Final = frozenset(CALL_KINDS) - {"open", "read", "mmap", "stat", "list", "lock", "close"}
"""The calls that change something on disk."""
FaultAction = Literal["fail", "short", "kill", "tear", "stop"]
ACTIONS: Final = ("none", "fail", "short", "kill", "tear", "stop")


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """What happens to one call.

    `fail`: it returns the errno `error` and does nothing. `short`: a read or a write transfers half of its bytes.
    `kill`: SIGKILL before it. `tear`: a write does half of its bytes, then SIGKILL. `stop`: SIGSTOP before it.
    """

    action: FaultAction
    call: int
    """Its number among the watched calls of these kinds, from 0."""
    error: int = 0
    kinds: frozenset[str] = frozenset(CALL_KINDS)
    sticky: bool = False
    """All calls after it meet the same: a disk that stays full."""


class LoggedCall(NamedTuple):
    """One call that changed something, or opened or synced a file, as it was done."""

    kind: str
    path: str
    other: str
    """The new name, of a rename or a link."""
    data: bytes
    """The bytes that were written."""
    inode: int
    offset: int
    result: int


@cache
def shim_library() -> Path:
    """The compiled library. Raises SkipTest where it cannot be compiled."""
    if shutil.which("gcc") is None:
        raise SkipTest("the shim of I/O calls needs gcc")
    folder = Path(tempfile.mkdtemp(prefix="io-shim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = folder / "io_shim.so"
    command = ["gcc", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SHIM_SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SkipTest(f"the shim of I/O calls does not compile here: {done.stderr[:200]}")
    return library


class IoShim:
    """The shim on the files below one folder."""

    def __init__(self, work: Path, watched: Path) -> None:
        self._watched, self._log = str(watched.resolve()), work / "io-log"
        self._path = work / "io-state"
        self._path.write_bytes(bytes(STATE_BYTES))
        with self._path.open("r+b") as file:
            self._state = mmap.mmap(file.fileno(), STATE_BYTES)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that put a process and its children under the shim."""
        return {"LD_PRELOAD": str(shim_library()), "IO_SHIM_STATE": str(self._path)}

    def arm(self, fault: PlannedFault | None = None, *, log: bool = False) -> None:
        """Begin to count from 0, with this fault to come; with `log`, write down every call."""
        fault = fault or PlannedFault("fail", -1)
        self._log.unlink(missing_ok=True)
        mask = sum(1 << CALL_KINDS.index(kind) for kind in fault.kinds)
        self._state[: STATE.size] = STATE.pack(
            0, fault.call, ACTIONS.index(fault.action), fault.error, mask, fault.sticky, 0, 0, 1,
            self._watched.encode(), b"", str(self._log).encode() if log else b"", *[0] * len(CALL_KINDS),
        )  # fmt: skip

    def disarm(self) -> None:
        """Let all calls pass uncounted; the counts stay."""
        values = list(STATE.unpack(self._state[: STATE.size]))
        values[8] = 0
        self._state[: STATE.size] = STATE.pack(*values)

    @property
    def calls(self) -> int:
        """The calls so far, of the kinds of the fault."""
        return int(STATE.unpack(self._state[: STATE.size])[0])

    @property
    def per_kind(self) -> dict[str, int]:
        """The calls so far, by kind."""
        return dict(zip(CALL_KINDS, STATE.unpack(self._state[: STATE.size])[-len(CALL_KINDS) :], strict=True))

    @property
    def fired(self) -> str:
        """The first call that met the fault, as `kind path`; empty if none did."""
        _, _, _, _, _, _, fired, kind, _, _, path, *_ = STATE.unpack(self._state[: STATE.size])
        return f"{CALL_KINDS[kind]} {path.rstrip(bytes(1)).decode()}" if fired else ""

    def log(self) -> Iterator[LoggedCall]:
        """The calls of a run that was armed with `log`, in their order."""
        data = self._log.read_bytes() if self._log.exists() else b""
        at = 0
        while at < len(data):
            kind, path, other, length, inode, offset, result = RECORD.unpack_from(data, at)
            at += RECORD.size
            texts = data[at : at + path + other].decode()
            yield LoggedCall(
                CALL_KINDS[kind],
                texts[:path],
                texts[path:],
                data[at + path + other :][:length],
                inode,
                offset,
                result,
            )
            at += path + other + length
