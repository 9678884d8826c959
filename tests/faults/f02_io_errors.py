"""F2: the N-th I/O call of six commands fails, is interrupted, or transfers half: one sentence, and then the same bytes."""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

from pipeline.errors import OutOfSpace, UsageError
from tests.faults.builds import row, spread
from tests.faults.command_server import CommandOutcome, CommandServer
from tests.faults.io_shim import CALL_KINDS, WRITING_KINDS, PlannedFault
from tests.faults.rows import FaultRow
from tests.faults.six_commands import MODULES, SmallCommand, SmallFiles

SHORT = 12
LONG = 600
FAULTS: Final = (
    PlannedFault("fail", -1, errno.EIO, frozenset(CALL_KINDS)),
    PlannedFault("fail", -1, errno.ENOSPC, WRITING_KINDS),
    PlannedFault("fail", -1, errno.EINTR, frozenset(CALL_KINDS) - {"close"}),
    PlannedFault("short", -1, kinds=frozenset({"read"})),
    PlannedFault("short", -1, kinds=frozenset({"write"})),
)
READ_ONLY: Final = PlannedFault("fail", 0, errno.EROFS, WRITING_KINDS, sticky=True)
"""A disk that can only be read: one point for each command."""
CODES: Final = {errno.ENOSPC: OutOfSpace.exit_code, errno.EROFS: UsageError.exit_code}
DOCUMENTED_CODES: Final = frozenset({2, 3, 4, 5, 75})


def run(points: int, folder: Path) -> FaultRow:
    """Try so many calls, spread evenly over the commands and the kinds of faults."""
    problems: list[str] = []
    ends: Counter[str] = Counter()
    files = SmallFiles(folder)
    with CommandServer(files.work, files.watched, MODULES) as server:
        files.build_inputs(server)
        every: list[tuple[SmallCommand, PlannedFault]] = []
        references = {}
        for command in files.commands():
            command.prepare()
            done = server.run(command.module, command.argv)
            assert done.code == 0, done.errors
            references[command.name] = command.finished(done)
            counts = server.shim.per_kind
            for fault in FAULTS:
                calls = sum(counts[kind] for kind in fault.kinds)
                every += [(command, replace(fault, call=call)) for call in range(calls)]
        read_only = [(command, READ_ONLY) for command in files.commands()]
        for command, fault in [*(every[at] for at in spread(len(every), points)), *read_only]:
            command.prepare()
            done = server.run(command.module, command.argv, fault)
            ends[f"exit {done.code}"] += 1
            problem = problem_of_the_end(
                command, done, fault, references[command.name]
            ) or problem_afterwards(server, command, references[command.name])
            if problem:
                name = errno.errorcode.get(fault.error, fault.action)
                problems.append(f"{command.name}, {name} at {fault.call} ({done.fired}): {problem}")
    tried, calls = ends.total(), len(every) + len(read_only)
    shown = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    return row(tried, problems, f"{tried:,} of {calls:,} calls of {len(references)} commands: {shown}")


def problem_of_the_end(
    command: SmallCommand, done: CommandOutcome, fault: PlannedFault, reference: dict[str, str]
) -> str:
    """What is wrong with how a disturbed command ended; empty if nothing is."""
    if done.code == 0:
        return "" if command.finished(done) == reference else "it ends with 0 and other results"
    if done.code not in DOCUMENTED_CODES or not done.sentence:
        return f"exit {done.code}: {done.errors.strip()[-300:]}"
    if done.code != CODES.get(fault.error, done.code):
        return f"exit {done.code}, not {CODES[fault.error]}: {done.errors.strip()[-300:]}"
    return ""


def problem_afterwards(server: CommandServer, command: SmallCommand, reference: dict[str, str]) -> str:
    """What is wrong with the same command when it runs again; empty if nothing is."""
    again = server.run(command.module, command.again() if command.again else command.argv)
    if again.code:
        return f"the same command again ends with {again.code}: {again.errors.strip()[-300:]}"
    return "" if command.finished(again) == reference else "the same command again has other results"
