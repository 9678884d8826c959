"""The loader in front of a GPU: how fast it decodes, how fast pixels get there, how long one waits.

    python -m benchmarks.loader_gpu --json gpu.json         everything, about six minutes
    python -m benchmarks.loader_gpu --device cpu --quick    the same without a GPU: does it run?

It needs no data: it draws its pictures first (clouds, which compress like photographs), or takes
`--shards`. Three tables:
decoding    images per second of a decoder alone, by hardware share, chunk and threads
copying     from pinned memory to the device, alone and by the loader with raw pixels
waiting     the time that a consumer loses which computes for so long on each chunk; asynchronously, as
            a trainer does: what the same work takes on a chunk that is there already, against the clock
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.loader_data import installed
from benchmarks.loader_gpu_parts import build, consumers, job_stream, synchronize
from pipeline.loader.episode import Chunk
from pipeline.loader.loader import EpisodeLoader
from pipeline.samplers.fixed import Fixed
from pipeline.shardset import ShardSet

HARDWARE: Final = (0.0, 0.65, 0.9, 1.0)
CHUNKS: Final = (40, 128, 256)
THREADS: Final = (2, 4, 8, 16)
MILLISECONDS: Final = (1.0, 2.0, 4.0, 8.0)
GIGA: Final = 1e9

Row = dict[str, Any]


def decoding(shards: ShardSet, wish: Namespace) -> Iterator[Row]:
    """Decoders alone, over the sweep; `hardware` is DALI's on a GPU only."""
    names = ["turbo"] + (["dali"] if installed("nvidia.dali") else [])
    for name, chunk, threads in product(names, wish.chunks, wish.threads):
        shares = wish.hardware if name == "dali" and wish.device == "cuda" else (None,)
        for hardware in shares:
            row: Row = {"decoder": name, "hardware": hardware, "chunk": chunk, "threads": threads}
            with job_stream(shards, wish.size, wish.device, **row) as finished:
                yield row | rate(finished, wish.seconds, chunk)


def rate(finished: Callable[[], object], seconds: float, chunk: int) -> Row:
    """Images per second and per CPU second of something that finishes a chunk at each call."""
    until = time.monotonic() + seconds / 4
    while time.monotonic() < until:
        finished()
    begin, cpu, chunks = time.monotonic(), time.process_time(), 0
    while time.monotonic() < begin + seconds:
        finished()
        chunks += 1
    synchronize()
    wall, cpu = time.monotonic() - begin, time.process_time() - cpu
    return {"images_per_second": chunks * chunk / wall, "cpu_cores": cpu / wall}


def copying(shards: ShardSet, wish: Namespace) -> Iterator[Row]:
    """Gigabytes per second: plain pinned copies, and the loader with raw pixels."""
    for chunk in wish.chunks:
        source = torch.empty((chunk, 3, wish.size, wish.size), dtype=torch.uint8)
        source = source.pin_memory() if wish.device == "cuda" else source
        target = torch.empty_like(source, device=wish.device)
        target.copy_(source)
        synchronize()
        begin, copies = time.monotonic(), 0
        while time.monotonic() < begin + wish.seconds / 2:
            target.copy_(source, non_blocking=True)
            copies += 1
        synchronize()
        speed = copies * source.nbytes / (time.monotonic() - begin) / GIGA
        yield {"what": "pinned memory, plain", "chunk": chunk, "gigabytes_per_second": speed}
        with loader(shards, wish, "turbo", chunk) as episodes:
            begin, images = time.monotonic(), 0
            for part in chunks_of(episodes):
                images += len(part)
                if time.monotonic() > begin + wish.seconds:
                    break
            synchronize()
            seconds, stats = time.monotonic() - begin, episodes.stats
        row = {"what": "loader, raw", "chunk": chunk, "images_per_second": images / seconds}
        image = 3 * wish.size**2 / GIGA
        if stats.copying:
            row["gigabytes_per_second"] = stats.images * image / stats.copying
        yield row


def loader(shards: ShardSet, wish: Namespace, decoder: Any, chunk: int) -> EpisodeLoader:
    """With the machine's own number of threads."""
    sampler = Fixed(shards, split="", way=20, shot=25, query=5)
    return EpisodeLoader(
        shards, sampler, image_size=wish.size, chunk=chunk, device=wish.device, decoder=decoder
    )


def chunks_of(episodes: EpisodeLoader) -> Iterator[Chunk]:
    """In the order in which they come, without end."""
    for episode in episodes:
        yield episode.support.h
        yield from episode.support.rest
        yield from episode.query


def waiting(shards: ShardSet, wish: Namespace) -> Iterator[Row]:
    """Consumers of every speed behind both decoders."""
    decoders = ["turbo"] + (["dali"] if installed("nvidia.dali") else [])
    for decoder, (name, consume) in product(decoders, consumers(wish)):
        with loader(shards, wish, decoder, wish.chunk) as episodes:
            stream = chunks_of(episodes)
            sizes = [len(next(stream)) for _ in range(2)]  # the pipeline is filled
            before, begin = episodes.stats, time.monotonic()
            sizes.clear()
            while time.monotonic() < begin + wish.seconds:
                part = next(stream)
                consume(part.images)
                sizes.append(len(part))
            synchronize()
            wall, stats = time.monotonic() - begin, episodes.stats - before
        alone = alone_seconds(consume, part.images, sizes)
        yield {
            "decoder": decoder,
            "consumer": name,
            "images_per_second": sum(sizes) / wall,
            "needs_images_per_second": sum(sizes) / alone,
            "lost": max(0.0, 1 - alone / wall),
            "waiting_share": stats.waiting / wall,
        }


def alone_seconds(
    consume: Callable[[Any], object], images: torch.Tensor, sizes: list[int]
) -> float:
    """The same work on pixels that are there already."""
    repeated = images.repeat(-(-max(sizes) // len(images)), 1, 1, 1)
    resident = repeated.contiguous(memory_format=torch.channels_last)
    consume(resident)
    synchronize()
    begin = time.monotonic()
    for size in sizes:
        consume(resident[:size])
    synchronize()
    return time.monotonic() - begin


def table(rows: list[Row]) -> str:
    """Markdown, one column for each key."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(key.replace('_', ' ') for key in keys)} |", "|---" * len(keys) + "|"]
    lines += [f"| {' | '.join(cell(row.get(key)) for key in keys)} |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    """Shares and speeds in three digits."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def parsed() -> Namespace:
    """The flags, with what depends on the machine or on others filled in."""
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--shards", type=Path, help="JPEG shards without splits; drawn if not given"
    )
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--pictures", type=int, default=6000, help="to draw")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--chunk", type=int, default=128, help="of the consumers")
    parser.add_argument("--chunks", type=int, nargs="+", default=list(CHUNKS))
    parser.add_argument("--threads", type=int, nargs="+")
    parser.add_argument("--hardware", type=float, nargs="+", default=list(HARDWARE))
    parser.add_argument("--milliseconds", type=float, nargs="+", default=list(MILLISECONDS))
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--json", type=Path, metavar="FILE")
    wish = parser.parse_args()
    wish.cores = len(os.sched_getaffinity(0))
    wish.threads = wish.threads or [threads for threads in THREADS if threads <= wish.cores]
    if wish.quick:
        wish.pictures, wish.seconds, wish.chunks = 1500, 0.5, wish.chunks[:2]
    return wish


def main() -> None:
    wish = parsed()
    name = torch.cuda.get_device_name() if wish.device == "cuda" else "no GPU"
    print(f"{name}, {wish.cores} cores, torch {torch.__version__}, {wish.size} px", flush=True)
    found: Row = {"device": name, "cores": wish.cores, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as scratch:
        jpeg = wish.shards or build(Path(scratch) / "jpeg", "jpeg:95", wish.size, wish.pictures)
        raw = build(Path(scratch) / "raw", "raw", wish.size, wish.pictures)
        for part, folder in ((decoding, jpeg), (copying, raw), (waiting, jpeg)):
            rows = found[part.__name__] = []
            for row in part(ShardSet.open(folder), wish):
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
                if wish.json:  # a machine that is taken away leaves what was found
                    wish.json.write_text(json.dumps(found, indent=1))
            print(f"\n### {part.__name__}\n\n{table(rows)}\n", flush=True)


if __name__ == "__main__":
    main()
