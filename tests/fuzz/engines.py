"""A process that tries inputs: guided by coverage where atheris is installed, else by seeded changes."""

from __future__ import annotations

import mmap
import random
import struct
import sys
import tempfile
import time
import traceback
from argparse import ArgumentParser
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.fuzz.mutations import LONGEST_INPUT, mutate_bytes
from tests.fuzz.target import FuzzTarget, load_target
from tests.fuzz.trial import TrialLimits, keep_find, signature, trial_limits

HEADER: Final = struct.Struct("<QQQ")  # inputs tried, finds, bytes of the input under test
BOX_BYTES: Final = HEADER.size + LONGEST_INPUT
LINES: Final = 12  # of a find's traceback
HOUR: Final = 3600  # seconds; libFuzzer's own limit, since ours are stricter
FRESH: Final = 0.25  # share of inputs that are made from a seed, not from an input made before


class FlightRecorder:
    """The input under test, in a file mapped into memory: it survives a process that crashes or is killed."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), BOX_BYTES)

    def write(self, tried: int, finds: int, data: bytes) -> None:
        self._map[: HEADER.size] = HEADER.pack(tried, finds, len(data))
        self._map[HEADER.size : HEADER.size + len(data)] = data

    def read(self) -> tuple[int, int, bytes]:
        """Inputs tried, finds, and the last input."""
        tried, finds, length = HEADER.unpack(self._map[: HEADER.size])
        return tried, finds, self._map[HEADER.size : HEADER.size + length]


class FuzzSession:
    """Inputs tried so far and finds, each kind of find once."""

    def __init__(
        self, target: FuzzTarget, limits: TrialLimits, recorder: FlightRecorder | None = None
    ) -> None:
        self._target, self._limits, self._recorder = target, limits, recorder
        self.tried = 0
        self.signatures: set[str] = set()

    def try_input(self, data: bytes) -> None:
        """Try one input; a new kind of find is written down and reported."""
        self.passes(data)

    def passes(self, data: bytes) -> bool:
        """Whether an input is no find, old or new."""
        data = data[:LONGEST_INPUT]
        self.tried += 1
        if self._recorder:
            self._recorder.write(self.tried, len(self.signatures), data)
        try:
            self._limits.run(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a target lets through is a find
            self._report(error, data)
            return False
        return True

    def _report(self, error: BaseException, data: bytes) -> None:
        found = signature(error)
        if found in self.signatures:
            return
        self.signatures.add(found)
        path = keep_find(self._target, data)
        text = "".join(traceback.format_exception(error)).splitlines()[-LINES:]
        print(f"FIND {found}: {path} ({len(data)} bytes)", *text, sep="\n    ", flush=True)


def seeded(target: FuzzTarget, session: FuzzSession, seed: int, go_on: Callable[[], bool]) -> None:
    """Try changed seeds, and changes of those, the same ones for the same seed of the generator."""
    generator = random.Random(f"{target.name} {seed}")
    inputs = [*target.seeds, *(path.read_bytes() for path in target.finds())]
    for data in inputs:
        session.try_input(data)
    last = inputs[0]
    while go_on():
        start = generator.choice(inputs) if generator.random() < FRESH else last
        changed = mutated(target, start, generator)[:LONGEST_INPUT]
        last = changed if session.passes(changed) and changed else generator.choice(inputs)


def mutated(target: FuzzTarget, data: bytes, generator: random.Random) -> bytes:
    """A changed input; byte by byte where the target's own changes do not cope. atheris hangs on an error in them."""
    try:
        return target.mutate(data, generator)
    except Exception:  # noqa: BLE001 - of an input that no parser has to read
        return mutate_bytes(data, generator)


def guided(target: FuzzTarget, session: FuzzSession, seed: int, seconds: float) -> None:
    """Try inputs that reach new code, as libFuzzer finds them; does not return."""
    import atheris  # noqa: PLC0415 - an extra, and needed in this process alone

    def own_mutation(data: bytes, longest: int, number: int) -> bytes:
        generator = random.Random(number)
        if generator.random() < FRESH:
            return bytes(atheris.Mutate(data, longest))
        return mutated(target, data, generator)[:longest]

    with tempfile.TemporaryDirectory(prefix="fuzz-corpus-") as corpus:
        inputs = [*target.seeds, *(path.read_bytes() for path in target.finds())]
        for number, data in enumerate(inputs):
            (Path(corpus) / f"{number:04d}").write_bytes(data)
        flags = [f"-seed={seed + 1}", f"-max_total_time={seconds:.0f}", f"-max_len={LONGEST_INPUT}"]
        quiet = [
            "-rss_limit_mb=0",
            f"-timeout={HOUR}",
            "-verbosity=0",
            f"-artifact_prefix={corpus}/",
            "-handle_segv=0",
        ]
        structured = {"custom_mutator": own_mutation} if target.structured else {}
        atheris.Setup([sys.argv[0], *flags, *quiet, corpus], session.try_input, **structured)
        atheris.Fuzz()


def load_instrumented(name: str) -> FuzzTarget:
    """The target with its parsers instrumented for coverage."""
    import atheris  # noqa: PLC0415 - an extra, and needed in this process alone

    with atheris.instrument_imports(include=["pipeline", "learners"]):
        return load_target(name)


def main() -> None:
    """Try inputs until the time is over; the parent process reads the recorder."""
    parser = ArgumentParser(prog="python -m tests.fuzz.engines", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("recorder", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--plain", action="store_true", help="seeded changes even where atheris is installed")
    flags = parser.parse_args()
    with_atheris = not flags.plain and find_spec("atheris") is not None
    target = load_instrumented(flags.name) if with_atheris else load_target(flags.name)
    for data in target.seeds:
        target.check(data)  # caches fill and libraries load before memory is measured
    with trial_limits(target) as limits:
        session = FuzzSession(target, limits, FlightRecorder(flags.recorder))
        if with_atheris:
            guided(target, session, flags.seed, flags.seconds)
        end = time.monotonic() + flags.seconds
        seeded(target, session, flags.seed, lambda: time.monotonic() < end)


if __name__ == "__main__":
    main()
