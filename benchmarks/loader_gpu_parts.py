"""What benchmarks/loader_gpu.py measures with: pictures, a decoder in isolation, consumers."""

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

from benchmarks.loader_data import installed, seen
from pipeline.build.builder import build_shards
from pipeline.decoders.base import Decoder, Job
from pipeline.decoders.threads import Threads
from pipeline.pixels import normalise
from pipeline.records import ClassRecord, Encoding, Item, Pixels, Recipe, Rejected, Survey
from pipeline.shardset import ShardSet
from pipeline.sources.base import Source
from pipeline.store.local import Store, spots_of

CLASSES: Final = 50
SKY: Final = 400  # pixels, the side of what pictures are cut out of
ROUGHNESS: Final = (
    1.2  # the power of the frequency by which amplitudes fall; photographs have about 1
)
CONTRAST: Final = 60.0  # grey levels
IN_FLIGHT: Final = 4  # jobs that a decoder has at once
SIDE: Final = 2048  # of the matrices that a consumer multiplies


@dataclass(frozen=True, kw_only=True)
class Clouds(Source):
    """Noise with the spectrum of photographs, so that JPEG finds as much in it as in them."""

    name: str = "clouds"
    root: Path = Path()
    images: int

    def survey(self) -> Survey:
        """So many pictures of each class."""
        classes = tuple(ClassRecord(name=f"cloud-{number:02d}") for number in range(CLASSES))
        items = (
            Item(f"{record.name}/{number:04d}", class_id, offset=number)
            for class_id, record in enumerate(classes)
            for number in range(self.images // CLASSES)
        )
        return Survey(classes=classes, items=items)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """Draw them."""
        for item in items:
            yield seen(_cloud(item.class_id), item.class_id * self.images + item.offset)


@lru_cache(maxsize=4)
def _cloud(number: int) -> Image.Image:
    dice = np.random.default_rng(number)
    frequency = np.hypot(np.fft.fftfreq(SKY)[:, None], np.fft.rfftfreq(SKY)[None])
    frequency[0, 0] = 1
    bands = []
    for _ in range(3):
        white = np.fft.rfft2(dice.standard_normal((SKY, SKY)))
        band = np.fft.irfft2(white / frequency**ROUGHNESS, s=(SKY, SKY))
        bands.append(band / band.std())
    grey, *tints = bands  # photographs vary in light more than in colour
    colours = np.stack([grey + 0.3 * tint for tint in (*tints, -tints[0])], axis=-1)
    return Image.fromarray(np.clip(128 + CONTRAST * colours, 0, 255).astype(np.uint8))


def build(out: Path, encoding: str, size: int, images: int) -> Path:
    """A shard set of clouds."""
    stored = (Encoding.parse(encoding),)
    build_shards(Clouds(images=images), out / "clouds", Recipe(sizes=(size,), encodings=stored))
    return out


def open_decoder(
    store: Store, *, name: str, size: int, threads: int, device: str, hardware: float | None = None
) -> Decoder:
    """One decoder; DALI's with its share of hardware, which the loader leaves alone."""
    if name == "turbo":
        return Threads(store, size=size, threads=threads)
    from pipeline.decoders.dali import HARDWARE_SHARE, Dali  # noqa: PLC0415 - it may not be there

    share = HARDWARE_SHARE if hardware is None else hardware
    return Dali(store, size=size, threads=threads, device=device, hardware=share)


@contextmanager
def job_stream(
    shards: ShardSet, size: int, device: str, *, decoder: str, chunk: int, **options: Any
) -> Iterator[Callable[[], None]]:
    """A call that waits for one more chunk of random pictures while others are being decoded."""
    (dataset,), store = shards, shards.open_store()
    opened = open_decoder(store, name=decoder, size=size, device=device, **options)
    dice, flight = np.random.default_rng(0), deque[Job]()
    encoding = dataset.manifest.recipe.encodings[dataset.manifest.recipe.sizes.index(size)]
    place = device if opened.wants_device(encoding) else "cpu"
    rooms = [
        torch.empty((chunk, size, size, 3), dtype=torch.uint8, device=place)
        for _ in range(IN_FLIGHT)
    ]

    def submit(room: torch.Tensor) -> None:
        rows = np.sort(dice.integers(len(dataset.index), size=chunk))
        job = Job(spots_of(dataset, size, rows), room)
        flight.append(job)
        opened.submit(job)

    def finished() -> None:
        job = flight.popleft()
        job.wait()
        if job.error or job.faults:
            raise RuntimeError(f"{decoder}: {job.error or job.faults}")
        submit(job.out)

    try:
        for room in rooms:
            submit(room)
        yield finished
    finally:
        opened.close()
        store.close()


def synchronize() -> None:
    """The device has done all it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def consumers(wish: Any) -> Iterator[tuple[str, Callable[[torch.Tensor], object]]]:
    """What is done with each chunk, slow and fast, and a real network where timm is installed."""
    for milliseconds in wish.milliseconds:
        if wish.device == "cpu":  # a consumer that computes elsewhere
            yield f"{milliseconds:g} ms", partial(_asleep, milliseconds / 1000)
        else:
            yield f"{milliseconds:g} ms", _multiplying(milliseconds / 1000)
    if installed("timm"):
        yield "EfficientNet-B0 forward, bf16", _network(wish.device)


def _asleep(seconds: float, images: torch.Tensor) -> None:  # noqa: ARG001 - they are there
    time.sleep(seconds)


def _multiplying(seconds: float) -> Callable[[torch.Tensor], object]:
    """As many matrix products as take that long on this GPU."""
    matrix = torch.randn((SIDE, SIDE), device="cuda", dtype=torch.bfloat16)

    def products(times: int) -> None:
        for _ in range(times):
            torch.mm(matrix, matrix)

    products(20)
    synchronize()
    begin = time.monotonic()
    products(200)
    synchronize()
    times = max(1, round(seconds / ((time.monotonic() - begin) / 200)))
    return lambda images: products(times)  # noqa: ARG005 - it computes as if on them


def _network(device: str) -> Callable[[torch.Tensor], object]:
    import timm  # noqa: PLC0415 - a GPU machine may lack it

    model = timm.create_model("efficientnet_b0").to(device, torch.bfloat16).eval()
    model = model.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward(images: torch.Tensor) -> object:
        return model(normalise(images, dtype=torch.bfloat16))

    return forward
