"""One contender in a process of its own: it streams when told to, and is stopped in between.

    python -m benchmarks.loader_contenders turbo 224 500

benchmarks/loader.py starts these, writes a command a line and reads an answer a line:

    go N       open, take N items; how long the first one and all of them took, and a look at the pixels
    turn S     take items for S seconds, after half a second that fills what was drained
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from benchmarks import loader_engines, loader_peers
from benchmarks.loader_cases import THREADS, Case, Seen, shown
from benchmarks.loader_data import reference, shards, stored_bytes
from pipeline.shardset import ShardSet

HELD: Final = 3000  # pictures that the ceiling keeps in memory: far more than a cache
LOOKED_AT: Final = 32  # pictures of the first item, compared with Pillow's
FILLING: Final = 0.5  # seconds, and at least so many items, before a turn counts
FILLING_ITEMS: Final = 2


def ours(
    case: Case, decoder: Any, encoding: str = "jpeg", *, fast: bool = False, mapped: bool = False
) -> Iterator[Seen]:
    """EpisodeLoader, as a trainer uses it: chunk by chunk."""
    from pipeline.loader.loader import EpisodeLoader  # noqa: PLC0415

    case.ready()
    sampler = case.sampler(ShardSet.open(shards(encoding)))
    with EpisodeLoader(
        ShardSet.open(shards(encoding)), sampler,
        image_size=case.size, decoder=decoder, threads=THREADS,
        fast=fast, mapped=mapped,
    ) as loader:  # fmt: skip
        for episode in loader:
            h = episode.support.h
            images = len(h) + sum(len(chunk) for chunk in episode.support.rest)
            images += sum(len(chunk) for chunk in episode.query)
            rows = episode.plan.support.rows[h.positions.numpy()]
            yield shown(h.images.permute(0, 2, 3, 1).numpy(), rows, images)


def uncompiled(case: Case, decoder: Any) -> Iterator[Seen]:
    """As where nothing could be compiled: sample by sample, through simplejpeg."""
    from pipeline.decoders import fill  # noqa: PLC0415
    from pipeline.samplers import pool  # noqa: PLC0415

    fill.native = pool.deal = None  # type: ignore[assignment,attr-defined]
    yield from ours(case, decoder)


def ceiling(case: Case, encoding: str = "jpeg", *, fast: bool = False) -> Iterator[Seen]:
    """Pixels alone: the same bytes, in memory already, into place; two processes and nothing else."""
    case.ready()
    held: list[Any] = [data for _, _, data in islice(stored_bytes(encoding, case.size), HELD)]
    work: Callable[[Any, Any], object] = partial(decode, fast=fast)
    if encoding == "raw":
        row = case.size**2 * 3
        held, work = list(np.stack([np.frombuffer(data, np.uint8)[-row:] for data in held])), copy
    context = multiprocessing.get_context("fork")
    parts = [context.Semaphore(0) for _ in range(THREADS)]
    room = (case.images // THREADS, case.size, case.size, 3)
    for number, done in enumerate(parts):
        arguments = (work, held, room, np.random.default_rng(number), done.release)
        context.Process(target=again_and_again, args=arguments, daemon=True).start()
    while True:
        for done in parts:
            done.acquire()
        yield Seen(np.empty(0, np.uint8), None, room[0] * THREADS)


def again_and_again(
    work: Callable[[Any, Any], object],
    held: list[Any],
    shape: tuple[int, ...],
    dice: np.random.Generator,
    done: Callable[[], object],
) -> None:
    """Random ones into one piece of memory, and say so each time it is full."""
    room = np.zeros((shape[0], math.prod(shape[1:])), np.uint8)
    rows = list(room)
    while True:
        for row, at in zip(rows, dice.integers(len(held), size=len(rows)).tolist(), strict=True):
            work(held[at], row)
        done()


def decode(data: bytes, row: NDArray[np.uint8], *, fast: bool) -> None:
    """libjpeg-turbo, and nothing around it."""
    simplejpeg.decode_jpeg(data, "RGB", fastdct=fast, fastupsample=fast, buffer=row)


def copy(pixels: NDArray[np.uint8], row: NDArray[np.uint8]) -> None:
    """memcpy."""
    np.copyto(row, pixels)


CONTENDERS: Final[dict[str, Callable[[Case], Iterator[Seen]]]] = {
    "ceiling": ceiling,
    "ceiling-fast": partial(ceiling, fast=True),
    "ceiling-raw": partial(ceiling, encoding="raw"),
    "turbo": partial(ours, decoder="turbo"),
    "turbo-fast": partial(ours, decoder="turbo", fast=True),
    "turbo-mapped": partial(ours, decoder="turbo", mapped=True),
    "turbo-fast-mapped": partial(ours, decoder="turbo", fast=True, mapped=True),
    "turbo-uncompiled": partial(uncompiled, decoder="turbo"),
    "dali": partial(ours, decoder="dali"),
    "raw": partial(ours, decoder="turbo", encoding="raw"),
    "raw-mapped": partial(ours, decoder="turbo", encoding="raw", mapped=True),
    **loader_peers.CONTENDERS,
    **loader_engines.CONTENDERS,
}


def session_processes() -> list[Path]:
    """This process and all that it started."""
    own, found = os.getsid(0), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == own:
                found.append(process)
        except ProcessLookupError:
            continue
    return found


def cpu_seconds() -> float:
    """User and system time of the session, its ended processes included."""
    ticks = 0
    for process in session_processes():
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def megabytes() -> float:
    """Memory of the session, each page once; pages of files are the kernel's and not counted."""
    kilobytes = 0
    for process in session_processes():
        lines = (process / "smaps_rollup").read_text().splitlines()
        kilobytes += sum(
            int(x.split()[1]) for x in lines if x.startswith(("Pss_Anon", "Pss_Shmem"))
        )
    return kilobytes / 1024


class Turns:
    """Does what the commands say."""

    def __init__(self, name: str, size: int, support: int) -> None:
        self._name, self._begun = name, 0.0
        self._case = Case(size, support, self._wait)
        self._stream = CONTENDERS[name](self._case)

    def _wait(self) -> None:
        """All is imported: what follows the command counts."""
        say({"ready": True})
        self._items = int(sys.stdin.readline().split()[1])
        self._begun = time.monotonic()

    def go(self) -> None:
        """Take the first items."""
        first = next(self._stream)
        first_after = time.monotonic() - self._begun
        kept = first.pixels[:LOOKED_AT].copy()  # whose memory some use again
        images = first.images + sum(next(self._stream).images for _ in range(self._items - 1))
        seconds = time.monotonic() - self._begun
        say({
            "first": first_after, "images": images, "seconds": seconds,
            "difference": self._difference(kept, first.rows), "megabytes": megabytes(),
        })  # fmt: skip

    def _difference(self, pixels: NDArray[np.uint8], rows: NDArray[np.int64] | None) -> int | None:
        """The most that any pixel differs from what Pillow decodes; None if the rows are not known."""
        if rows is None:
            return None
        kind = "raw" if "raw" in self._name else "jpeg"
        truth = reference(kind, self._case.size, rows[:LOOKED_AT])
        return int(np.abs(pixels.astype(np.int16) - truth).max())

    def turn(self, seconds: float) -> None:
        """Take items for that long."""
        filled, items = time.monotonic() + FILLING, 0
        while time.monotonic() < filled or items < FILLING_ITEMS:
            next(self._stream)
            items += 1
        cpu, begin, images = cpu_seconds(), time.monotonic(), 0
        while time.monotonic() < begin + seconds:
            images += next(self._stream).images
        cpu, seconds = cpu_seconds() - cpu, time.monotonic() - begin
        say({"images": images, "seconds": seconds, "cpu": cpu, "megabytes": megabytes()})


@cache
def _answers() -> Any:
    """The pipe to whoever asked; what libraries print goes to stderr instead."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return pipe


def say(answer: dict[str, Any]) -> None:
    """One line."""
    print(json.dumps(answer), file=_answers(), flush=True)


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("size", type=int)
    parser.add_argument("support", type=int)
    arguments = parser.parse_args()
    _answers()
    turns = Turns(arguments.name, arguments.size, arguments.support)
    turns.go()
    for line in sys.stdin:
        turns.turn(float(line.split()[1]))
    os._exit(0)  # without waiting for anybody's workers: the session is ended as a whole


if __name__ == "__main__":
    main()
