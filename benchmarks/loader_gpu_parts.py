"""The parts of benchmarks/loader_gpu.py: drawn images, a decoder alone, consumers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from benchmarks.common import is_installed, synchronize
from benchmarks.loader_data import draw_view, drawn_survey
from pipeline.build.builder import build_shards
from pipeline.decoders.base import ChunkDecoder, DecodeJob
from pipeline.decoders.threads import ThreadedDecoder
from pipeline.pixels import normalise
from pipeline.records import Encoding, Item, Pixels, Recipe, Rejected, Survey
from pipeline.shardset import ShardSet
from pipeline.sources.base import Source
from pipeline.store.local import SampleStore, locate_samples

CLOUDS: Final = 50
CLOUD_SIDE: Final = 400  # pixels; images are cut out of clouds of this side
ROUGHNESS: Final = 1.2  # amplitudes fall with this power of the frequency; in photographs about 1
CONTRAST: Final = 60.0  # grey levels
IN_FLIGHT: Final = 4  # jobs that a decoder has at a time
MATRIX_SIDE: Final = 2048  # of the matrices that a consumer multiplies


@dataclass(frozen=True, kw_only=True)
class CloudSource(Source):
    """Noise with the spectrum of photographs, so that its JPEGs are about as large."""

    name: str = "clouds"
    root: Path = Path()
    images: int

    def survey(self) -> Survey:
        """As many images of each cloud."""
        names = (f"cloud-{number:02d}" for number in range(CLOUDS))
        return drawn_survey(names, self.images // CLOUDS, digits=4)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """Draw the images of these items."""
        for item in items:
            yield draw_view(_cloud(item.class_id), item.class_id * self.images + item.offset)


@lru_cache(maxsize=4)
def _cloud(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    frequency = np.hypot(np.fft.fftfreq(CLOUD_SIDE)[:, None], np.fft.rfftfreq(CLOUD_SIDE)[None])
    frequency[0, 0] = 1
    bands = []
    for _ in range(3):
        white = np.fft.rfft2(rng.standard_normal((CLOUD_SIDE, CLOUD_SIDE)))
        band = np.fft.irfft2(white / frequency**ROUGHNESS, s=(CLOUD_SIDE, CLOUD_SIDE))
        bands.append(band / band.std())
    grey, *tints = bands  # photographs vary in light more than in colour
    colours = np.stack([grey + 0.3 * tint for tint in (*tints, -tints[0])], axis=-1)
    return Image.fromarray(np.clip(128 + CONTRAST * colours, 0, 255).astype(np.uint8))


def build_clouds(out: Path, encoding: str, size: int, images: int) -> Path:
    """Build a shard set of clouds."""
    stored = (Encoding.parse(encoding),)
    build_shards(CloudSource(images=images), out / "clouds", Recipe(sizes=(size,), encodings=stored))
    return out


def open_decoder(
    store: SampleStore, *, name: str, size: int, threads: int, device: str, hardware: float | None = None
) -> ChunkDecoder:
    """Open a decoder; DALI's with a share of hardware decoding, which the loader does not set."""
    if name == "turbo":
        return ThreadedDecoder(store, size=size, threads=threads)
    from pipeline.decoders.dali import HARDWARE_SHARE, DaliDecoder  # noqa: PLC0415 - it may not be there

    share = HARDWARE_SHARE if hardware is None else hardware
    return DaliDecoder(store, size=size, threads=threads, device=device, hardware=share)


@contextmanager
def job_stream(
    shards: ShardSet, size: int, device: str, *, decoder: str, chunk: int, **options: Any
) -> Iterator[Callable[[], None]]:
    """A function that waits for one more chunk of random images while others are being decoded."""
    (dataset,), store = shards, shards.open_store()
    opened = open_decoder(store, name=decoder, size=size, device=device, **options)
    rng, in_flight = np.random.default_rng(0), deque[DecodeJob]()
    encoding = dataset.manifest.recipe.encodings[dataset.manifest.recipe.sizes.index(size)]
    target = device if opened.wants_device(encoding) else "cpu"
    buffers = [
        torch.empty((chunk, size, size, 3), dtype=torch.uint8, device=target) for _ in range(IN_FLIGHT)
    ]

    def submit(buffer: torch.Tensor) -> None:
        rows = np.sort(rng.integers(len(dataset.index), size=chunk))
        job = DecodeJob(locate_samples(dataset, size, rows), buffer)
        in_flight.append(job)
        opened.submit(job)

    def finish_chunk() -> None:
        job = in_flight.popleft()
        job.wait()
        if job.error or job.faults:
            raise RuntimeError(f"{decoder}: {job.error or job.faults}")
        submit(job.out)

    try:
        for buffer in buffers:
            submit(buffer)
        yield finish_chunk
    finally:
        opened.close()
        store.close()


def consumers(flags: Any) -> Iterator[tuple[str, Callable[[torch.Tensor], object]]]:
    """Names and functions that consume a chunk, slow and fast; a real network where timm is installed."""
    for milliseconds in flags.milliseconds:
        if flags.device == "cpu":  # as a consumer that computes on another device
            yield f"{milliseconds:g} ms", partial(_sleep, milliseconds / 1000)
        else:
            yield f"{milliseconds:g} ms", _multiply_for(milliseconds / 1000)
    if is_installed("timm"):
        yield "EfficientNet-B0 forward, bf16", _network_forward(flags.device)


def _sleep(seconds: float, images: torch.Tensor) -> None:  # noqa: ARG001 - not needed
    time.sleep(seconds)


def _multiply_for(seconds: float) -> Callable[[torch.Tensor], object]:
    """A consumer that computes as many matrix products as take that long on this GPU."""
    matrix = torch.randn((MATRIX_SIDE, MATRIX_SIDE), device="cuda", dtype=torch.bfloat16)

    def products(times: int) -> None:
        for _ in range(times):
            torch.mm(matrix, matrix)

    products(20)
    synchronize()
    begin = time.monotonic()
    products(200)
    synchronize()
    times = max(1, round(seconds / ((time.monotonic() - begin) / 200)))
    return lambda images: products(times)  # noqa: ARG005 - not needed


def _network_forward(device: str) -> Callable[[torch.Tensor], object]:
    import timm  # noqa: PLC0415 - a GPU machine may lack it

    model = timm.create_model("efficientnet_b0").to(device, torch.bfloat16).eval()
    model = model.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward(images: torch.Tensor) -> object:
        return model(normalise(images, dtype=torch.bfloat16))

    return forward
