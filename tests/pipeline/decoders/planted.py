"""Datasets with exactly the bytes that a test chooses, sound or not, and their right checksums."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.decoders.base import ChunkDecoder, DecodeJob, SampleFault
from pipeline.decoders.choose import DecoderName, open_decoder
from pipeline.index import Dataset, DatasetManifest, SampleIndex
from pipeline.layout import DatasetLayout
from pipeline.records import ClassRecord, Encoding, Recipe
from pipeline.store.local import LocalStore, SampleLocations, locate_samples
from pipeline.store.mapped import MappedStore
from tests.images import make_image

SIZE = 48


def write_shard(
    root: Path, pictures: Sequence[bytes], encoding: str = "jpeg:95", size: int = SIZE
) -> SampleLocations:
    """Write a dataset of one shard with these encoded images. Returns their locations."""
    shard = DatasetLayout(root).tar(size, 0)
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_bytes(b"".join(pictures))
    lengths = [len(data) for data in pictures]
    rows = np.arange(len(pictures))
    columns = {
        "key": rows,
        "class_id": np.zeros_like(rows),
        "shard": np.zeros_like(rows),
        f"offset_{size}": np.array([0, *accumulate(lengths[:-1])]),
        f"length_{size}": np.array(lengths),
        f"crc32_{size}": np.array([zlib.crc32(data) for data in pictures]),
    }
    index = SampleIndex(columns, {}, np.array([0, len(rows)]))
    return locate_samples(Dataset(root, _manifest(len(rows), size, encoding), index), size, rows)


def _manifest(samples: int, size: int, encoding: str) -> DatasetManifest:
    return DatasetManifest(
        name="planted",
        plan_hash="",
        recipe=Recipe(sizes=(size,), encodings=(Encoding.parse(encoding),)),
        classes=(ClassRecord(name="all"),),
        hierarchy={},
        samples=samples,
        splits={},
        shards={},
        sources=(),
        quarantined=(),
        versions=(),
        index_sha256="",
    )


def image_bytes(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def make_jpegs(count: int, size: int = SIZE, **options: Any) -> list[bytes]:
    """Different sound JPEGs."""
    return [image_bytes(make_image(seed, size, size), quality=95, **options) for seed in range(count)]


def npy_bytes(pixels: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    """The bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()


def decode_by_pillow(pictures: Sequence[bytes]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The pixels that Pillow decodes from image files."""
    return np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in pictures])


def job_for(locations: SampleLocations) -> DecodeJob:
    """A job whose memory holds a constant that is not its pixels."""
    return DecodeJob(
        locations, torch.full((len(locations), locations.size, locations.size, 3), 77, dtype=torch.uint8)
    )


@contextmanager
def open_cpu_decoder(
    name: DecoderName, *, size: int = SIZE, threads: int = 2, mapped: bool = False
) -> Iterator[ChunkDecoder]:
    """A decoder on the CPU, and its store."""
    store = MappedStore() if mapped else LocalStore()
    decoder = open_decoder(name, store, size=size, threads=threads, device="cpu")
    try:
        yield decoder
    finally:
        decoder.close()
        store.close()


def decode_all(decoder: ChunkDecoder, *locations: SampleLocations) -> tuple[torch.Tensor, list[SampleFault]]:
    """Pixels and faults of jobs, one after another."""
    jobs = [job_for(some) for some in locations]
    for job in jobs:
        decoder.submit(job)
    for job in jobs:
        assert job.wait(60), "a job that never ends"
        if job.error is not None:
            raise job.error
    return torch.cat([job.out for job in jobs]), [fault for job in jobs for fault in job.faults]
