"""Runs commands of the project under the I/O shim, each in a fork of a process that has imported them.

    with CommandServer(work, watched=folder, modules=("pipeline.build.__main__",)) as server:
        done = server.run("pipeline.build.__main__", ["--dataset", ...], PlannedFault("kill", 7))
        done.code, done.errors, done.calls, done.fired

A module is a command when it has `main(argv) -> int`. A fork takes milliseconds where imports take seconds.
A command that a fault stops (SIGSTOP) goes on after another one, `meanwhile`, has run to its end, or has waited
for it for a while.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn

from benchmarks.common import ROOT
from pipeline.command import run_command
from tests.faults.io_shim import IoShim, PlannedFault

SERVER: Final = "tests.faults.command_server"
MEANWHILE_SECONDS: Final = 4.0  # after which a command is taken to wait for the one that is stopped
LOOK_SECONDS: Final = 0.01
COMMAND_SECONDS: Final = 120  # after which a command counts as hanging; the slowest takes a few


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """How a command ended."""

    code: int
    """Its exit code; minus the signal that ended it (SIGALRM: it hung)."""
    output: str
    errors: str
    calls: int
    """The watched calls of the fault's kinds."""
    fired: str
    """The call that met the fault, as `kind path`; empty if none did."""
    meanwhile: int = 0
    """The exit code of the command that ran while this one was stopped."""

    @property
    def sentence(self) -> bool:
        """Whether it ended with one sentence, not with a traceback, and not in silence."""
        return "Traceback" not in self.errors and bool(self.errors.strip())


class CommandServer:
    """A process that has imported the modules and forks for each command."""

    def __init__(self, work: Path, watched: Path, modules: Sequence[str]) -> None:
        self.shim = IoShim(work, watched)
        self._output, self._errors = work / "stdout", work / "stderr"
        self._process = subprocess.Popen(
            [sys.executable, "-m", SERVER, str(self._output), str(self._errors), *modules], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | self.shim.environment,
        )  # fmt: skip

    def __enter__(self) -> CommandServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(
        self,
        module: str,
        argv: Sequence[str],
        fault: PlannedFault | None = None,
        *,
        log: bool = False,
        meanwhile: Sequence[str] | None = None,
    ) -> CommandOutcome:
        """Run a command to its end, with a fault; `shim.log()` has its calls if it was to `log` them.

        meanwhile: the arguments with which the same command runs while this one is stopped.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.shim.arm(fault, log=log)
        request = {"module": module, "argv": list(argv), "meanwhile": meanwhile and list(meanwhile)}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        status, other = map(os.waitstatus_to_exitcode, json.loads(self._process.stdout.readline()))
        self.shim.disarm()
        return CommandOutcome(
            code=status, meanwhile=other, output=self._output.read_text(errors="replace"),
            errors=self._errors.read_text(errors="replace"), calls=self.shim.calls, fired=self.shim.fired,
        )  # fmt: skip


def serve(output: str, errors: str, modules: Sequence[str]) -> None:
    """Run the commands that come as lines of JSON, one after the other; answer with their wait statuses."""
    commands: dict[str, Any] = {name: importlib.import_module(name) for name in modules}
    for line in sys.stdin:
        request = json.loads(line)
        main, others = commands[request["module"]].main, []
        child = _start(main, request["argv"], output, errors)
        while True:
            _, status = os.waitpid(child, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            if request["meanwhile"] is not None:
                others.append(_start(main, request["meanwhile"], output + "-other", errors + "-other"))
                _wait_a_while(others[-1])
            os.kill(child, signal.SIGCONT)
        ends = [os.waitpid(other, 0)[1] for other in others]
        _import_what_it_imported(output)
        print(json.dumps([status, *ends, 0][:2]), flush=True)


def _wait_a_while(child: int) -> None:
    """Wait for a command that may itself be waiting for the one that is stopped; its end is not yet asked for."""
    for _ in range(int(MEANWHILE_SECONDS / LOOK_SECONDS)):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(LOOK_SECONDS)


def _import_what_it_imported(output: str) -> None:
    """Import here what a command has imported on its way, so that the next one need not."""
    names = Path(f"{output}-imports")
    if names.exists():
        for name in names.read_text().split():
            with suppress(Exception):
                importlib.import_module(name)
        names.unlink()


def _start(main: Any, argv: list[str], output: str, errors: str) -> int:
    """Run a command in a process of its own; returns its number."""
    child = os.fork()
    if not child:
        _run_child(main, argv, output, errors)
    return child


def _run_child(main: Any, argv: list[str], output: str, errors: str) -> NoReturn:
    code = 1
    try:
        for number, path in ((0, os.devnull), (1, output), (2, errors)):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, flags, 0o600), number)
        sys.stdin = open(0)  # noqa: SIM115 - the server's own buffer holds requests
        signal.alarm(COMMAND_SECONDS)
        before = set(sys.modules)
        code = run_command(main, argv)
        if code == 0 and (more := sys.modules.keys() - before):
            Path(f"{output}-imports").write_text("\n".join(sorted(more)))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - what Python itself would print
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], sys.argv[3:])
