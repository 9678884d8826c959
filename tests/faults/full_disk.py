"""Commands on a disk of its own that is too small: `unshare -m python -m tests.faults.full_disk FOLDER POINTS`.

Prints a row of the matrix as JSON. In a namespace of its own the disk (a tmpfs) goes with the process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from pipeline.errors import OutOfSpace
from tests.faults.builds import row, spread
from tests.faults.command_server import CommandOutcome, CommandServer
from tests.faults.f02_io_errors import problem_afterwards
from tests.faults.rows import FaultRow
from tests.faults.six_commands import BUILD_MODULES, LOADER, MODULES, TRAIN, SmallCommand, SmallFiles

PAGE_BYTES = 4096
LARGE = "64m"
MANY_POINTS = (
    50  # from which training, evaluation and classifier are tried as well: their imports take seconds
)


def run(points: int, folder: Path) -> FaultRow:
    """Let the disk be full after so many pages, spread over what each command writes; then again with space."""
    files = SmallFiles(folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "tmpfs", str(files.out)], check=True)
    problems: list[str] = []
    codes: list[int] = []
    modules = [name for name in (MODULES if points >= MANY_POINTS else BUILD_MODULES) if name != LOADER]
    with CommandServer(files.work, files.watched, modules) as server:
        files.build_inputs(server, run=TRAIN in modules)
        commands = [command for command in files.commands() if command.module in modules]
        every: list[tuple[SmallCommand, int]] = []
        references = {}
        for command in commands:
            command.prepare()
            before = _used_pages(files.out)
            done = server.run(command.module, command.argv)
            assert done.code == 0, done.errors
            references[command.name] = command.finished(done)
            every += [(command, pages) for pages in range(before, _used_pages(files.out) + 2)]
        chosen = spread(len(every), points)
        for command, pages in (every[at] for at in chosen):
            command.prepare()
            _resize(files.out, str(max(1, pages) * PAGE_BYTES))
            done = server.run(command.module, command.argv)
            left = [path.name for path in files.out.rglob(".tmp-*")]
            _resize(files.out, LARGE)
            codes.append(done.code)
            problem = _problem_of_the_end(done, left) or problem_afterwards(
                server, command, references[command.name]
            )
            problems += [f"{command.name} with {pages} pages: {problem}"] if problem else []
    full = codes.count(OutOfSpace.exit_code)
    figure = (
        f"{len(chosen)} full tmpfs under {len(commands)} commands, {full} ended with 5, the others had enough"
    )
    return row(len(chosen), problems, figure)


def _problem_of_the_end(done: CommandOutcome, left: list[str]) -> str:
    if done.code not in {0, OutOfSpace.exit_code} or (done.code and not done.sentence):
        return f"exit {done.code}: {done.errors.strip()[-300:]}"
    return f"it leaves {left} on the full disk" if left else ""


def _used_pages(disk: Path) -> int:
    done = subprocess.run(
        ["df", "--output=used", "-B4096", str(disk)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def _resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


if __name__ == "__main__":
    print(json.dumps(asdict(run(int(sys.argv[2]), Path(sys.argv[1])))))
