"""One contender in a process of its own: it streams on command, and is stopped in between.

    python -m benchmarks.loader_contenders turbo 224 500

benchmarks/loader.py starts these, writes one command per line and reads one answer per line:

    go N       open and take N items; answers how long the first one and all took, and compares pixels
    turn S     take items for S seconds, after half a second that fills the buffers again
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
from benchmarks.loader_cases import READER_THREADS, LoadedImages, LoaderCase, loaded_images
from benchmarks.loader_data import reference_pixels, shard_set, stored_bytes
from pipeline.shardset import ShardSet

CEILING_IMAGES: Final = 3000  # that the ceiling keeps in memory: far more than a CPU's cache holds
COMPARED_IMAGES: Final = 32  # images of the first item that are compared with Pillow's
FILLING: Final = 0.5  # seconds, and at least so many items, before the clock of a turn starts
FILLING_ITEMS: Final = 2


def episode_loader(
    case: LoaderCase, decoder: Any, encoding: str = "jpeg", *, fast: bool = False, mapped: bool = False
) -> Iterator[LoadedImages]:
    """EpisodeLoader, as a trainer uses it: chunk by chunk."""
    from pipeline.loader.loader import EpisodeLoader  # noqa: PLC0415

    case.wait_for_start()
    sampler = case.sampler(ShardSet.open(shard_set(encoding)))
    with EpisodeLoader(
        ShardSet.open(shard_set(encoding)), sampler,
        image_size=case.size, decoder=decoder, threads=READER_THREADS,
        fast=fast, mapped=mapped,
    ) as loader:  # fmt: skip
        for episode in loader:
            h = episode.support.h
            images = len(h) + sum(len(chunk) for chunk in episode.support.rest)
            images += sum(len(chunk) for chunk in episode.query)
            rows = episode.plan.support.rows[h.positions.numpy()]
            yield loaded_images(h.images.permute(0, 2, 3, 1).numpy(), rows, images)


def uncompiled_loader(case: LoaderCase, decoder: Any) -> Iterator[LoadedImages]:
    """EpisodeLoader where nothing could be compiled: sample by sample, through simplejpeg."""
    from pipeline.decoders import fill  # noqa: PLC0415
    from pipeline.samplers import pool  # noqa: PLC0415

    fill.native = pool.deal = None  # type: ignore[assignment,attr-defined]
    yield from episode_loader(case, decoder)


def ceiling(case: LoaderCase, encoding: str = "jpeg", *, fast: bool = False) -> Iterator[LoadedImages]:
    """Decoding alone: the same bytes, in memory already, into a buffer; two processes and nothing else."""
    case.wait_for_start()
    samples = islice(stored_bytes(encoding, case.size), CEILING_IMAGES)
    stored: list[Any] = [data for _, _, data in samples]
    work: Callable[[Any, Any], object] = partial(decode_into, fast=fast)
    if encoding == "raw":
        row, work = case.size**2 * 3, copy_pixels
        stored = list(np.stack([np.frombuffer(data, np.uint8)[-row:] for data in stored]))
    context = multiprocessing.get_context("fork")
    parts = [context.Semaphore(0) for _ in range(READER_THREADS)]
    shape = (case.images // READER_THREADS, case.size, case.size, 3)
    for number, done in enumerate(parts):
        arguments = (work, stored, shape, np.random.default_rng(number), done.release)
        context.Process(target=fill_for_ever, args=arguments, daemon=True).start()
    while True:
        for done in parts:
            done.acquire()
        yield LoadedImages(np.empty(0, np.uint8), None, shape[0] * READER_THREADS)


def fill_for_ever(
    work: Callable[[Any, Any], object],
    stored: list[Any],
    shape: tuple[int, ...],
    rng: np.random.Generator,
    done: Callable[[], object],
) -> None:
    """Work on random images into one buffer, and call `done` each time it is full."""
    rows = list(np.zeros((shape[0], math.prod(shape[1:])), np.uint8))
    while True:
        for row, at in zip(rows, rng.integers(len(stored), size=len(rows)).tolist(), strict=True):
            work(stored[at], row)
        done()


def decode_into(data: bytes, row: NDArray[np.uint8], *, fast: bool) -> None:
    """Decode by libjpeg-turbo, with nothing around it."""
    simplejpeg.decode_jpeg(data, "RGB", fastdct=fast, fastupsample=fast, buffer=row)


def copy_pixels(pixels: NDArray[np.uint8], row: NDArray[np.uint8]) -> None:
    """Copy stored pixels, a memcpy."""
    np.copyto(row, pixels)


CONTENDER_STREAMS: Final[dict[str, Callable[[LoaderCase], Iterator[LoadedImages]]]] = {
    "ceiling": ceiling,
    "ceiling-fast": partial(ceiling, fast=True),
    "ceiling-raw": partial(ceiling, encoding="raw"),
    "turbo": partial(episode_loader, decoder="turbo"),
    "turbo-fast": partial(episode_loader, decoder="turbo", fast=True),
    "turbo-mapped": partial(episode_loader, decoder="turbo", mapped=True),
    "turbo-fast-mapped": partial(episode_loader, decoder="turbo", fast=True, mapped=True),
    "turbo-uncompiled": partial(uncompiled_loader, decoder="turbo"),
    "dali": partial(episode_loader, decoder="dali"),
    "raw": partial(episode_loader, decoder="turbo", encoding="raw"),
    "raw-mapped": partial(episode_loader, decoder="turbo", encoding="raw", mapped=True),
    **loader_peers.PEER_STREAMS,
    **loader_engines.ENGINE_STREAMS,
}


def session_processes() -> list[Path]:
    """This process and all that it started, in /proc."""
    session, processes = os.getsid(0), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == session:
                processes.append(process)
        except ProcessLookupError:
            continue
    return processes


def cpu_seconds() -> float:
    """User and system time of the session, with its ended processes."""
    ticks = 0
    for process in session_processes():
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def megabytes() -> float:
    """Memory of the session, each page once, without pages of files, which are the kernel's."""
    kilobytes = 0
    for process in session_processes():
        lines = (process / "smaps_rollup").read_text().splitlines()
        kilobytes += sum(int(x.split()[1]) for x in lines if x.startswith(("Pss_Anon", "Pss_Shmem")))
    return kilobytes / 1024


class ContenderTurns:
    """A contender's stream, and the commands on it."""

    def __init__(self, name: str, size: int, support: int) -> None:
        self._name, self._begin = name, 0.0
        self._case = LoaderCase(size, support, self._wait)
        self._stream = CONTENDER_STREAMS[name](self._case)

    def _wait(self) -> None:
        """Say that all is imported, and wait for the command; the clock starts then."""
        send({"ready": True})
        self._items = int(sys.stdin.readline().split()[1])
        self._begin = time.monotonic()

    def go(self) -> None:
        """Take the first items."""
        first = next(self._stream)
        first_after = time.monotonic() - self._begin
        kept = first.pixels[:COMPARED_IMAGES].copy()  # a copy, as some contenders reuse the memory
        images = first.images + sum(next(self._stream).images for _ in range(self._items - 1))
        seconds = time.monotonic() - self._begin
        send({
            "first": first_after, "images": images, "seconds": seconds,
            "difference": self._difference(kept, first.rows), "megabytes": megabytes(),
        })  # fmt: skip

    def _difference(self, pixels: NDArray[np.uint8], rows: NDArray[np.int64] | None) -> int | None:
        """The largest difference of any pixel from Pillow's; None if the rows are not known."""
        if rows is None:
            return None
        kind = "raw" if "raw" in self._name else "jpeg"
        truth = reference_pixels(kind, self._case.size, rows[:COMPARED_IMAGES])
        return int(np.abs(pixels.astype(np.int16) - truth).max())

    def turn(self, seconds: float) -> None:
        """Take items for so many seconds."""
        filled, items = time.monotonic() + FILLING, 0
        while time.monotonic() < filled or items < FILLING_ITEMS:
            next(self._stream)
            items += 1
        cpu, begin, images = cpu_seconds(), time.monotonic(), 0
        while time.monotonic() < begin + seconds:
            images += next(self._stream).images
        cpu, seconds = cpu_seconds() - cpu, time.monotonic() - begin
        send({"images": images, "seconds": seconds, "cpu": cpu, "megabytes": megabytes()})


@cache
def _answer_pipe() -> Any:
    """The pipe for answers, once stdout; what libraries print goes to stderr instead."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return pipe


def send(answer: dict[str, Any]) -> None:
    """Write an answer, one line of JSON."""
    print(json.dumps(answer), file=_answer_pipe(), flush=True)


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("name", choices=CONTENDER_STREAMS)
    parser.add_argument("size", type=int)
    parser.add_argument("support", type=int)
    arguments = parser.parse_args()
    _answer_pipe()
    turns = ContenderTurns(arguments.name, arguments.size, arguments.support)
    turns.go()
    for line in sys.stdin:
        turns.turn(float(line.split()[1]))
    os._exit(0)  # without waiting for workers: the session is killed as a whole


if __name__ == "__main__":
    main()
