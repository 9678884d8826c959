"""The loader in front of a GPU: how fast it decodes, how fast pixels are copied, how long a consumer waits.

    python -m benchmarks.loader_gpu --json gpu.json         everything, about six minutes
    python -m benchmarks.loader_gpu --device cpu --quick    the same without a GPU: does it run?

It needs no data: it first draws images (clouds, which compress like photographs), unless `--shards` names
some. Three tables:
decoding    images per second of a decoder alone, by hardware share, chunk and threads
copying     from pinned memory to the device, alone and by the loader with raw pixels
waiting     the share of time that a consumer loses, which computes asynchronously on each chunk as a trainer
            does: the clock against the time of the same work on a chunk that is on the device already
"""

from __future__ import annotations

import os
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.common import BILLION, TableRow, collect_rows, is_installed, markdown_table, synchronize
from benchmarks.loader_gpu_parts import build_clouds, consumers, job_stream
from pipeline.loader.episode import Chunk
from pipeline.loader.loader import EpisodeLoader
from pipeline.samplers.fixed import Fixed
from pipeline.shardset import ShardSet

HARDWARE: Final = (0.0, 0.65, 0.9, 1.0)
CHUNKS: Final = (40, 128, 256)
THREAD_COUNTS: Final = (2, 4, 8, 16)
MILLISECONDS: Final = (1.0, 2.0, 4.0, 8.0)


def measure_decoding(shards: ShardSet, flags: Namespace) -> Iterator[TableRow]:
    """Decoders alone, for each chunk and number of threads; `hardware` is for DALI on a GPU."""
    names = ["turbo"] + (["dali"] if is_installed("nvidia.dali") else [])
    for name, chunk, threads in product(names, flags.chunks, flags.threads):
        shares = flags.hardware if name == "dali" and flags.device == "cuda" else (None,)
        for hardware in shares:
            row: TableRow = {
                "decoder": name, "hardware": hardware, "chunk": chunk, "threads": threads
            }  # fmt: skip
            with job_stream(shards, flags.size, flags.device, **row) as finish_chunk:
                yield row | measure_rate(finish_chunk, flags.seconds, chunk)


def measure_rate(finish_chunk: Callable[[], object], seconds: float, chunk: int) -> TableRow:
    """Images per second, and busy CPU cores, of a function that finishes a chunk in each call."""
    until = time.monotonic() + seconds / 4
    while time.monotonic() < until:
        finish_chunk()
    begin, cpu, chunks = time.monotonic(), time.process_time(), 0
    while time.monotonic() < begin + seconds:
        finish_chunk()
        chunks += 1
    synchronize()
    wall, cpu = time.monotonic() - begin, time.process_time() - cpu
    return {"images_per_second": chunks * chunk / wall, "cpu_cores": cpu / wall}


def measure_copying(shards: ShardSet, flags: Namespace) -> Iterator[TableRow]:
    """Gigabytes per second: plain pinned copies, and the loader with raw pixels."""
    for chunk in flags.chunks:
        source = torch.empty((chunk, 3, flags.size, flags.size), dtype=torch.uint8)
        source = source.pin_memory() if flags.device == "cuda" else source
        target = torch.empty_like(source, device=flags.device)
        target.copy_(source)
        synchronize()
        begin, copies = time.monotonic(), 0
        while time.monotonic() < begin + flags.seconds / 2:
            target.copy_(source, non_blocking=True)
            copies += 1
        synchronize()
        speed = copies * source.nbytes / (time.monotonic() - begin) / BILLION
        yield {"what": "pinned memory, plain", "chunk": chunk, "gigabytes_per_second": speed}
        with open_loader(shards, flags, "turbo", chunk) as episodes:
            begin, images = time.monotonic(), 0
            for part in chunks_of(episodes):
                images += len(part)
                if time.monotonic() > begin + flags.seconds:
                    break
            synchronize()
            seconds, stats = time.monotonic() - begin, episodes.stats
        row = {"what": "loader, raw", "chunk": chunk, "images_per_second": images / seconds}
        image = 3 * flags.size**2 / BILLION
        if stats.copying:
            row["gigabytes_per_second"] = stats.images * image / stats.copying
        yield row


def open_loader(shards: ShardSet, flags: Namespace, decoder: Any, chunk: int) -> EpisodeLoader:
    """A loader of large episodes, with its own number of threads."""
    sampler = Fixed(shards, split="", way=20, shot=25, query=5)
    return EpisodeLoader(
        shards, sampler, image_size=flags.size, chunk=chunk, device=flags.device, decoder=decoder
    )


def chunks_of(episodes: EpisodeLoader) -> Iterator[Chunk]:
    """All chunks of all episodes, in the order of delivery, without end."""
    for episode in episodes:
        yield episode.support.h
        yield from episode.support.rest
        yield from episode.query


def measure_waiting(shards: ShardSet, flags: Namespace) -> Iterator[TableRow]:
    """The waiting of consumers of every speed, with both decoders."""
    decoders = ["turbo"] + (["dali"] if is_installed("nvidia.dali") else [])
    for decoder, (name, consume) in product(decoders, consumers(flags)):
        with open_loader(shards, flags, decoder, flags.chunk) as episodes:
            stream = chunks_of(episodes)
            sizes = [len(next(stream)) for _ in range(2)]  # until the buffers are full
            before, begin = episodes.stats, time.monotonic()
            sizes.clear()
            while time.monotonic() < begin + flags.seconds:
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


def alone_seconds(consume: Callable[[Any], object], images: torch.Tensor, sizes: list[int]) -> float:
    """Seconds of the same work on images that are on the device already."""
    repeated = images.repeat(-(-max(sizes) // len(images)), 1, 1, 1)
    resident = repeated.contiguous(memory_format=torch.channels_last)
    consume(resident)
    synchronize()
    begin = time.monotonic()
    for size in sizes:
        consume(resident[:size])
    synchronize()
    return time.monotonic() - begin


def parse_flags() -> Namespace:
    """The flags, with defaults that depend on the machine or on other flags."""
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--shards", type=Path, help="JPEG shards without splits; drawn if not given")
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
    flags = parser.parse_args()
    flags.cores = len(os.sched_getaffinity(0))
    flags.threads = flags.threads or [threads for threads in THREAD_COUNTS if threads <= flags.cores]
    if flags.quick:
        flags.pictures, flags.seconds, flags.chunks = 1500, 0.5, flags.chunks[:2]
    return flags


def main() -> None:
    flags = parse_flags()
    name = torch.cuda.get_device_name() if flags.device == "cuda" else "no GPU"
    print(f"{name}, {flags.cores} cores, torch {torch.__version__}, {flags.size} px", flush=True)
    results: TableRow = {"device": name, "cores": flags.cores, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as scratch:
        jpeg = flags.shards or build_clouds(Path(scratch) / "jpeg", "jpeg:95", flags.size, flags.pictures)
        raw = build_clouds(Path(scratch) / "raw", "raw", flags.size, flags.pictures)
        for part, measure, folder in (
            ("decoding", measure_decoding, jpeg),
            ("copying", measure_copying, raw),
            ("waiting", measure_waiting, jpeg),
        ):
            measured = measure(ShardSet.open(folder), flags)
            rows = collect_rows(part, measured, results, flags.json)
            print(f"\n### {part}\n\n{markdown_table(rows)}\n", flush=True)


if __name__ == "__main__":
    main()
